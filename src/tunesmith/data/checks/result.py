"""What a check found: plain numbers and places, as warnings, as one JSON object. How it is printed is in `show.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tunesmith.core.errors import Problem
from tunesmith.core.types import Source
from tunesmith.data.checks.alike import Kind, Matches, Texts
from tunesmith.data.checks.judged import LabelHealth, PairHealth, Rows
from tunesmith.data.checks.lengths import bars, percentiles
from tunesmith.data.checks.near import THRESHOLD
from tunesmith.data.report import DatasetReport, dataset_warnings

SCHEMA = 1
"""Version of the JSON object; it changes when a field is taken away or means something else."""

Role = Literal["train", "eval"]


@dataclass(slots=True)
class DatasetCheck:
    """One data set.

    Attributes:
        role: named by `dataset` or by `eval_dataset`.
        formatting: its layout.
        report: its accounting.
        lengths: tokens of each kept row.
        longest: where the longest row is.
        texts: its rows as they are compared.
        exact: rows that repeat an earlier one.
        near: rows that nearly do.
        pairs: of a preference set.
        labels: of a KTO set.
    """

    role: Role
    formatting: str
    report: DatasetReport
    lengths: Any = ()
    longest: Source | None = None
    texts: Texts = field(default_factory=Texts, repr=False)
    exact: Matches = field(default_factory=Matches)
    near: Matches = field(default_factory=Matches)
    pairs: PairHealth | None = None
    labels: LabelHealth | None = None

    def warnings(self) -> Iterator[str]:
        """What the user should look at, with the name of the data set."""
        yield from dataset_warnings(self.report)
        judged = self.pairs or self.labels
        for line in judged.warnings() if judged else ():
            yield f"{self.report.name}: {line}"

    def as_json(self) -> dict[str, Any]:
        """The entry in `datasets`."""
        report = self.report
        return {
            "name": report.name,
            "role": self.role,
            "path": report.path,
            "formatting": self.formatting,
            "read": report.read,
            "kept": report.kept,
            "rejected": report.rejected,
            "truncated": report.truncated,
            "tokens": report.tokens,
            "trained_tokens": report.trained_tokens,
            "trained_share": round(report.trained_tokens / report.tokens, 4) if report.tokens else None,
            "lost_tokens": report.lost_tokens,
            "lost_trained_tokens": report.lost_trained_tokens,
            "untrained": report.untrained,
            "cut_answers": _noted(report, report.cut_answers, "cut"),
            "open_answers": _noted(report, report.open_answers - report.cut_answers, "open"),
            "lost_headers": _noted(report, report.lost_headers, "header"),
            "lost_questions": _noted(report, report.lost_questions, "question"),
            "trailing": report.trailing,
            "placeholders": report.placeholders,
            "lengths": self._lengths(),
            "rejected_by_reason": [
                {"reason": reason, **_noted(report, count, f"rejected: {reason}")}
                for reason, count in Counter(report.reasons).most_common()
            ],
            "rejects": [
                {**_place(entry.source), "column": entry.column, "reason": entry.reason, "fix": entry.fix}
                for entry in report.rejects
            ],
            "duplicates": {"exact": _matches(self.exact), "near": _matches(self.near), "threshold": THRESHOLD},
            "pairs": _pairs(self.pairs) if self.pairs else None,
            "labels": _labels(self.labels) if self.labels else None,
        }

    def _lengths(self) -> dict[str, Any]:
        return {
            "mean": round(float(np.mean(self.lengths)), 1) if len(self.lengths) else None,
            **percentiles(self.lengths),
            "longest": {"tokens": self.report.longest, **_place(self.longest)} if self.longest else None,
            "histogram": [{"from": bar.first, "to": bar.last, "rows": bar.rows} for bar in bars(self.lengths)],
        }


@dataclass(slots=True)
class CheckResult:
    """Everything that a check found.

    Attributes:
        stage: as configured.
        not_built: what of the stage is not built yet; empty where it trains.
        template: name of the template.
        cutoff_len: tokens of the longest row.
        datasets: training data first.
        held_out: rows that `val_size` takes for evaluation.
        leaks: evaluation rows that training has seen; None without evaluation data.
        problems: what stops a training run.
        picture: the picture that was written.
    """

    stage: str
    not_built: str
    template: str
    cutoff_len: int
    datasets: list[DatasetCheck]
    held_out: int = 0
    leaks: dict[Kind, Matches] | None = None
    problems: list[Problem] = field(default_factory=list)
    picture: str | None = None

    def warnings(self) -> list[str]:
        """What the user should look at before training."""
        found = [line for dataset in self.datasets for line in dataset.warnings()]
        leaked = sum(matches.count for matches in (self.leaks or {}).values())
        if leaked:
            found.append(f"{leaked} evaluation rows are known from the training data: scores on them mean little")
        return found

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "schema": SCHEMA,
            "ok": not self.problems,
            "stage": self.stage,
            "training_not_built": self.not_built or None,
            "template": self.template,
            "cutoff_len": self.cutoff_len,
            "datasets": [dataset.as_json() for dataset in self.datasets],
            "held_out_rows": self.held_out,
            "leaks": {kind: _matches(found) for kind, found in self.leaks.items()} if self.leaks is not None else None,
            "warnings": self.warnings(),
            "problems": problems_json(self.problems),
            "picture": self.picture,
        }


def problems_json(problems: list[Problem]) -> list[dict[str, str]]:
    """Problems for a machine."""
    return [{"what": problem.what, "where": problem.where, "fix": problem.fix} for problem in problems]


def _place(source: Source | None) -> dict[str, Any]:
    return {"file": source.file, "row": source.row} if source else {}


def _noted(report: DatasetReport, count: int, kind: str) -> dict[str, Any]:
    return {"rows": count, "first": [{"file": file, "row": row} for file, row in report.places.get(kind, [])]}


def _rows(rows: Rows) -> dict[str, Any]:
    return {"rows": rows.count, "first": [{"file": file, "row": row} for file, row in rows.first]}


def _matches(matches: Matches) -> dict[str, Any]:
    return {
        "rows": matches.count,
        "first": [
            {**_place(pair.row), "like": _place(pair.like), "similarity": round(pair.similarity, 3)}
            for pair in matches.pairs
        ],
    }


def _pairs(health: PairHealth) -> dict[str, Any]:
    chosen, rejected = health.means
    return {
        "rows": health.pairs,
        "identical": _rows(health.identical),
        "empty": _rows(health.empty),
        "contradictions": _rows(health.contradictions),
        "chosen_mean_tokens": round(chosen, 1),
        "rejected_mean_tokens": round(rejected, 1),
        "chosen_longer": health.chosen_longer,
        "rejected_longer": health.rejected_longer,
    }


def _labels(health: LabelHealth) -> dict[str, Any]:
    return {
        "desirable": health.desirable,
        "undesirable": health.undesirable,
        "contradictions": _rows(health.contradictions),
        "empty": _rows(health.empty),
    }
