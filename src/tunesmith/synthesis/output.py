"""The folder of a data set: the working file while it is made, all files when it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import runs
from tunesmith.synthesis import info_entries, write
from tunesmith.synthesis.cost import Meter
from tunesmith.synthesis.journal import Journal
from tunesmith.synthesis.retrying import Gate
from tunesmith.synthesis.rows import Account, Pair, Row
from tunesmith.synthesis.summary import Summary, page

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

PARQUET = "instruction_dataset"
RESULTS = "making_results.json"
SUMMARY = "summary.html"
_SHOWN_REASONS = 8


class Output:
    """Where a data set goes.

    Args:
        config: of the command.
        folder: `output_dir`.
        name: of the data set and its files.

    Attributes:
        held: ids of the rows for evaluation.
        more: further numbers of the command, and the line that tells them.
    """

    def __init__(self, config: RunConfig, folder: Path, name: str) -> None:
        self.config = config
        self.folder = folder
        self.name = name
        self.held: set[str] = set()
        self.more: tuple[dict[str, Any], str] = ({}, "")
        self._info = Path(config.dataset_dir).expanduser() if "dataset_dir" in config.explicit else folder

    @property
    def working_file(self) -> Path:
        """Rows as they are accepted; in order when all is done."""
        return self.folder / f"{self.name}.jsonl"

    def check(self) -> None:
        """Refuses names that belong to others, before anything is spent.

        Raises:
            DataError: they do.
        """
        names = [self.name, f"{self.name}_eval"]
        if self.config.preference and self.config.command == "data make":
            names += [f"{self.name}_preference", f"{self.name}_preference_eval"]
        info_entries.check_free(self._info, names, self.folder)

    def begin(self) -> None:
        """An empty working file; answers of earlier runs fill it again at once."""
        runs.write_atomic(self.working_file, "")

    def accepted(self, row: Row) -> None:
        """Takes a row into the working file."""
        runs.append_line(self.working_file, json.dumps(row.as_dict(), ensure_ascii=False))

    def write(
        self, account: Account[Row], pairs: Account[Pair] | None, meter: Meter, gate: Gate, journal: Journal | None
    ) -> str:
        """Writes all files.

        Returns:
            What the user is told.
        """
        rows = [(row.as_dict(), row.id in self.held) for row in account.rows]
        lines = [{**columns, "split": "eval" if held else "train"} for columns, held in rows]
        entries = self._tables(self.name, rows, ranking=False)
        failures = list(account.failures)
        if pairs is not None:
            entries |= self._tables(
                f"{self.name}_preference",
                [(pair.as_dict(), pair.row.id in self.held) for pair in pairs.rows],
                ranking=True,
            )
            failures += pairs.failures
        write.write_lines(self.working_file, lines)
        write.write_failures(self.folder, failures)
        facts = self._facts(account, pairs, meter, gate, journal)
        runs.write_json(self.folder / RESULTS, facts)
        summary = Summary(self.name, self.config, account, self.held, pairs, facts)
        runs.write_atomic(self.folder / SUMMARY, page(summary))
        if entries:
            info_entries.merge(self._info, entries)
        return "\n".join(self._told(account, pairs, facts, list(entries)))

    def _tables(self, name: str, rows: Sequence[tuple[Mapping[str, Any], bool]], *, ranking: bool) -> dict[str, Any]:
        """Writes json (and for rows parquet) of both sides; gives their entries for dataset_info.json."""
        entries = {}
        for suffix, held in (("", False), ("_eval", True)):
            part = [columns for columns, is_held in rows if is_held is held]
            path = self.folder / f"{name}{suffix}.json"
            parquet = self.folder / f"{PARQUET}{suffix}.parquet"
            if not part:  # a file of an earlier run must not stay as if it were of this one
                path.unlink(missing_ok=True)
                if not ranking:
                    parquet.unlink(missing_ok=True)
                continue
            write.write_json_rows(path, part)
            if not ranking:
                write.write_parquet(parquet, part)
            file_name = info_entries.file_name_from(self._info, path)
            entries[f"{name}{suffix}"] = write.entry_for(file_name, part, ranking=ranking)
        return entries

    def _facts(
        self, account: Account[Row], pairs: Account[Pair] | None, meter: Meter, gate: Gate, journal: Journal | None
    ) -> dict[str, Any]:
        """The accounting as numbers."""
        facts: dict[str, Any] = {
            "requested": account.requested,
            "kept": len(account.rows),
            "failed": len(account.failures),
            "train_rows": len(account.rows) - len(self.held),
            "eval_rows": len(self.held),
            "failed_by_reason": dict(account.reasons),
        }
        if pairs is not None:
            facts["pairs"] = {
                "requested": pairs.requested,
                "kept": len(pairs.rows),
                "failed": len(pairs.failures),
                "failed_by_reason": dict(pairs.reasons),
            }
        facts["calls"] = {
            "answered": meter.total.calls,
            "answered_in_this_run": meter.new.calls,
            "reused": journal.reused if journal else 0,
            "interrupted": journal.interrupted if journal else 0,
            "repeated_by_reason": dict(gate.repeated),
        }
        facts["tokens"] = {"prompt": meter.total.prompt_tokens, "completion": meter.total.completion_tokens}
        facts["cost"] = round(meter.cost, 6)
        return facts | self.more[0]

    def _told(
        self, account: Account[Row], pairs: Account[Pair] | None, facts: dict[str, Any], names: list[str]
    ) -> list[str]:  # fmt: skip
        lines = [text for text in (self.more[1], account.line()) if text]
        lines += [f"  {count:>6,}  {reason}" for reason, count in account.reasons[:_SHOWN_REASONS]]
        if len(account.reasons) > _SHOWN_REASONS:
            lines.append(f"  and {len(account.reasons) - _SHOWN_REASONS} more reasons")
        if pairs is not None:
            lines.append(f"pairs: {pairs.line()}")
        if facts["calls"]["answered"]:
            tokens, calls = facts["tokens"], facts["calls"]
            cost = f", cost {facts['cost']:.4f}" if facts["cost"] else ""
            repeated = sum(calls["repeated_by_reason"].values())
            lines.append(
                f"{calls['answered']:,} calls ({calls['answered_in_this_run']:,} now, {repeated:,} repetitions), "
                f"{tokens['prompt']:,} + {tokens['completion']:,} tokens{cost}"
            )
        if names:
            lines.append(f"written to {self.folder}: {', '.join(f'{name}.json' for name in names)}, {SUMMARY}")
            where = "" if self._info == self.folder else f" in {self._info}"
            lines.append(f"train on it with dataset={names[0]} dataset_dir={self._info}{where and ' (entry added)'}")
        return lines
