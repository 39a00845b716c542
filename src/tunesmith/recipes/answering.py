"""Answers to rows in one file, in input order, row by row; whoever was killed goes on. No scores, no configuration."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.journal import begin_rows, known_fingerprint, row_line, whole_lines, whole_rows
from tunesmith.core.log import get_logger
from tunesmith.evaluation.metrics.base import Sample, Scores

if TYPE_CHECKING:
    from tunesmith.data.prompts import PromptRow
    from tunesmith.inference.chat import ChatFormat
    from tunesmith.inference.engine import Engine, GenerationRequest, SamplingParams

WINDOW = 8
"""Rows are sorted by length among this many batches, so that those in front are written while the last ones wait."""
_logger = get_logger(__name__)


@dataclass(slots=True)
class Answering:
    """Rows to answers.

    Three files: the answers; `NAME.state.json`, which says what they are answers to; and, while it runs,
    `NAME.ahead.jsonl` with answers that wait for longer rows before them.

    Attributes:
        file: takes `prompt`, `predict`, `label` of every row.
        engine: answers.
        form: end tokens, ids to text.
        sampling: how answers are drawn; row i draws with seed + i, however rows are ordered, batched or resumed.
        batch_size: rows that go together.
        adapter: live adapter that answers; None: the model as it was loaded.
        skip_special_tokens: leave special tokens out of `predict`.
        score: gives the scores that are written beside each answer; None: none are.
    """

    file: Path
    engine: Engine
    form: ChatFormat
    sampling: SamplingParams
    batch_size: int
    adapter: str | None = None
    skip_special_tokens: bool = True
    score: Callable[[Sample], Scores] | None = None

    def write(self, rows: Sequence[PromptRow], *, seed: int, model: str) -> Iterator[int]:
        """Writes what is missing; yields how many rows the file holds, first as it was found, then after every row.

        Args:
            rows: in the order of the file.
            seed: of the first row.
            model: tells one model from another; answers of another one are not gone on with.

        Raises:
            DataError: another process writes the file.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _journal(self.file) as journal:
            done = self._begin(self.fingerprint(rows, seed, model), len(rows), journal)
            yield done
            waiting = _answers_ahead(journal, done)
            if waiting:
                _logger.info("%d more were answered before their turn", len(waiting))
            with self.file.open("ab") as out:
                for index, text in self._answers(rows, seed, done, waiting):
                    waiting[index] = text
                    if index != done:
                        _append(journal, {"row": index, "predict": text})
                        continue
                    while done in waiting:
                        row = rows[done]
                        _append(out, self._line(row, waiting.pop(done)))
                        done += 1
                        yield done
                    if not waiting:
                        journal.truncate(0)

    def _line(self, row: PromptRow, text: str) -> dict[str, Any]:
        line: dict[str, Any] = {"prompt": row.prompt_text, "predict": text, "label": row.label_text}
        if row.other_labels:
            line["references"] = [row.label_text, *row.other_labels]
        if self.score is not None:
            line["scores"] = self.score(Sample(text, row.label_text, row.prompt_text, row.other_labels))
        return line

    def _answers(
        self, rows: Sequence[PromptRow], seed: int, begin: int, known: dict[int, str]
    ) -> Iterator[tuple[int, str]]:
        """Yields (row, text) of all rows from `begin` on, as they are ready; those that are known come first."""
        order = [i for i in self._order(rows, begin) if i not in known]
        if begin in known:
            yield begin, known[begin]
        for offset, completion in self.engine.generate(self._request(rows[i], seed + i) for i in order):
            text = self.form.text_of(completion, skip_special_tokens=self.skip_special_tokens, stop=self.sampling.stop)
            yield order[offset], text

    def _order(self, rows: Sequence[PromptRow], begin: int) -> Iterator[int]:
        """Rows from `begin` on, the longest of each window first: what memory they take shows at once."""
        size = WINDOW * self.batch_size
        for start in range(begin, len(rows), size):
            window = range(start, min(start + size, len(rows)))
            yield from sorted(window, key=lambda index: -len(rows[index].input_ids))

    def _request(self, row: PromptRow, seed: int) -> GenerationRequest:
        from tunesmith.inference.engine import GenerationRequest

        sampling = replace(self.sampling, seed=seed)
        return GenerationRequest(row.input_ids, sampling, self.form.end_token_ids, self.adapter)

    def fingerprint(self, rows: Sequence[PromptRow], seed: int, model: str) -> str:
        """Of everything that decides what the file holds; the arguments are those of `write`."""
        digest = hashlib.sha256(model.encode())
        settings = {"sampling": asdict(self.sampling), "seed": seed, "skip": self.skip_special_tokens}
        digest.update(json.dumps([settings, list(self.form.end_token_ids)], sort_keys=True).encode())
        for row in rows:
            digest.update(
                json.dumps([list(row.input_ids), row.prompt_text, row.label_text, *row.other_labels]).encode()
            )
        return digest.hexdigest()

    def _begin(self, fingerprint: str, total: int, journal: BinaryIO) -> int:
        """Finds out how many rows are there already; cuts off a torn last one."""
        n_whole = len(whole_lines(self.file))
        if known_fingerprint(self.file) != fingerprint:
            if n_whole:
                kept = self.file.with_name(f"{self.file.name}.old")
                self.file.replace(kept)
                _logger.warning(
                    "%s is of another model, data or settings: it is written anew, the old one is %s now",
                    self.file, kept.name,
                )  # fmt: skip
            n_whole = 0
            journal.truncate(0)
        begin_rows(self.file, fingerprint, total)
        return n_whole


def _answers_ahead(journal: BinaryIO, done: int) -> dict[int, str]:
    """Row -> text, of those that the file does not hold; cuts off a torn last one."""
    journal.seek(0)
    lines = whole_rows(journal.read())
    journal.truncate(sum(map(len, lines)))
    entries = map(json.loads, lines)
    return {entry["row"]: entry["predict"] for entry in entries if entry["row"] >= done}


def _append(handle: BinaryIO, value: dict[str, Any]) -> None:
    handle.write(row_line(value))
    handle.flush()


@contextmanager
def _journal(file: Path) -> Iterator[BinaryIO]:
    """The file of answers that wait for their turn; it goes when all is written. Who has it open writes alone.

    Raises:
        DataError: another process writes these answers.
    """
    path = file.with_name(f"{file.stem}.ahead.jsonl")
    with path.open("a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError([Problem("another process is writing these answers", str(file), "wait for it")]) from error
        yield handle
        path.unlink(missing_ok=True)
