"""What a run's folder says of single samples: predictions with scores, answered questions. Reads, never writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.journal import read_rows
from tunesmith.evaluation.question import ROWS_FILE as QUESTIONS

PREDICTIONS = "generated_predictions.jsonl"
RESULTS = ("all_results.json", "predict_results.json", "eval_results.json")


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One sample of one run.

    Attributes:
        prompt: what was asked.
        label: what was wanted.
        predict: what came.
        scores: metric -> number; more is better.
    """

    prompt: str
    label: str
    predict: str
    scores: dict[str, float]


Key = tuple[str, ...]
"""Tells samples apart: what was asked and wanted, and which of several alike it is."""


@dataclass(frozen=True, slots=True)
class RunScores:
    """One run.

    Attributes:
        name: the folder's, as short as it is unique among those compared.
        folder: where it is.
        samples: kind (predictions, questions) -> samples by what they are.
        results: numbers of the whole run.
        curves: name (loss, eval_loss) -> (step, value) pairs.
    """

    name: str
    folder: Path
    samples: dict[str, dict[Key, ScoredSample]]
    results: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def read_run(folder: Path, name: str) -> RunScores:
    """Everything of a run that can be compared.

    Raises:
        TunesmithError: the folder holds neither predictions nor questions nor results.
    """
    if not folder.is_dir():
        raise TunesmithError(f"there is no run {folder}")
    samples = {
        "predictions": _keyed(_predictions(folder / PREDICTIONS)),
        "questions": _keyed(_questions(folder / QUESTIONS)),
    }
    samples = {kind: found for kind, found in samples.items() if found}
    results = _results(folder)
    if not samples and not results:
        raise TunesmithError(f"{folder} holds no results: neither {PREDICTIONS} nor {QUESTIONS} nor {RESULTS[0]}")
    return RunScores(name, folder, samples, results, _curves(folder / "trainer_log.jsonl"))


def _predictions(file: Path) -> Iterator[tuple[Key, ScoredSample]]:
    for row in read_rows(file):
        scores = {name: float(value) for name, value in (row.get("scores") or {}).items() if _is_number(value)}
        yield (row["prompt"], row["label"]), ScoredSample(row["prompt"], row["label"], row["predict"], scores)


def _questions(file: Path) -> Iterator[tuple[Key, ScoredSample]]:
    """Right or wrong, and the log-probability of the right letter; questions without a known answer are left out."""
    for row in read_rows(file):
        if row["answer"] is None:
            continue
        scores = {"accuracy": float(row["correct"]), "right_letter_logprob": float(row["logprobs"][row["answer"]])}
        choices = [f"{letter}. {text}" for letter, text in zip(row["logprobs"], row["choices"], strict=True)]
        prompt = "\n".join([row["question"], *choices])
        yield (row["subject"], str(row["index"]), prompt), ScoredSample(prompt, row["answer"], row["predicted"], scores)


def _keyed(pairs: Iterable[tuple[Key, ScoredSample]]) -> dict[Key, ScoredSample]:
    seen: Counter[Key] = Counter()
    found: dict[Key, ScoredSample] = {}
    for key, sample in pairs:
        seen[key] += 1
        found[(*key, str(seen[key]))] = sample
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _results(folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in reversed(RESULTS):
        found |= {key: float(value) for key, value in _json(folder / name).items() if _is_number(value)}
    for name, entry in (_json(folder / "summary.json").get("categories") or {}).items():
        if entry:
            found[f"accuracy, {name}"] = float(entry["accuracy"])
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _curves(file: Path) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in read_rows(file):
        for name in ("loss", "eval_loss"):
            if _is_number(row.get(name)) and _is_number(row.get("current_steps")):
                curves.setdefault(name, []).append((float(row["current_steps"]), float(row[name])))
    return curves


def short_names(folders: list[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    resolved = [folder.resolve() for folder in folders]
    depth = 1
    while depth < max(len(path.parts) for path in resolved):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
        depth += 1
    return [str(path) for path in resolved]
