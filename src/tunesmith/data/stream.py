"""`streaming`: rows are counted before the first step and read, rendered and tokenized when their step comes."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Example, Source, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.dataset import book_rows, cache_key, encoder_version, end_ids
from tunesmith.data.examples import book_example, select_places
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.mismatch import partner_of, prompt_key, with_mismatch
from tunesmith.data.mix import mix_rows, split_validation
from tunesmith.data.raw_rows import RawRows
from tunesmith.data.report import DatasetReport, example_lines, raise_rejects
from tunesmith.data.rows import RowsBuilder, TokenizedRows, TrainItem, as_item, pack_arrays
from tunesmith.data.texts import pieces_of, text_start
from tunesmith.data.tokenize import Encoder

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

_LOOK_AHEAD = 20
_SLOTS, _SLOT_ROWS = 64, 64
_BATCH = 1000


@dataclass(slots=True)
class _Part:
    """One data set of a stream.

    Attributes:
        rows: all its rows.
        places: those that take part, in order.
        seen: whether a row was booked in `report`, a byte each; every epoch reads it again.
    """

    spec: DatasetSpec
    rows: RawRows
    places: Any
    report: DatasetReport
    seen: bytearray


class StreamRows(Sequence[TrainItem]):
    """A map-style data set that keeps no token; the trainer asks for the rows of a step at once.

    A rejected row stops the run, or gives an item without rows where the configuration lets it go.

    Attributes:
        window: rows that the order is shuffled among.
    """

    def __init__(self, config: RunConfig, encoder: Encoder, specs: Sequence[DatasetSpec]) -> None:
        self._config, self._encoder = config, encoder
        self._ends = end_ids(encoder)
        self._parts = [_open_part(spec, config) for spec in specs]
        self._starts = np.cumsum([0, *(len(part.places) for part in self._parts)])
        self._order: Any = np.arange(self._starts[-1])
        self.window = config.buffer_size
        version = encoder_version(encoder)
        self._keys = [cache_key(spec, config, version) for spec in specs]
        # Written by loader processes, read by the main one when such a process is gone.
        self._in_flight: Any = np.frombuffer(mmap.mmap(-1, 8 * _SLOTS * (_SLOT_ROWS + 1)), dtype=np.int64)

    # -- what the trainer asks ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: list[int]) -> list[TrainItem]:
        """The items of a step, tokenized together."""
        self._note(indices)
        numbers = [int(self._order[index]) for index in indices]
        found = self.tokenize(numbers)
        return [self._item(index, found.get(number)) for index, number in zip(indices, numbers, strict=True)]

    def _item(self, index: int, row: TokenizedRow | None) -> TrainItem:
        kind, cutoff_len = KIND_OF_STAGE[self._config.stage], self._encoder.cutoff_len
        if row is None:
            return as_item([], [])
        if kind == "text":
            pieces = pieces_of(row, cutoff_len, text_start(self._encoder.tokenizer))
            return as_item(pieces, [index] * len(pieces))
        return as_item([self._beside_another(index, row) if kind == "feedback" else row], [index])

    def _beside_another(self, index: int, row: TokenizedRow) -> TokenizedRow:
        """The row with a mismatched answer, the same one as without streaming."""
        seen = {index: row}

        def key(place: int) -> bytes | None:
            if place not in seen:
                number = int(self._order[place])
                found = self.tokenize([number]).get(number)
                if found is None:
                    return None
                seen[place] = found
            return prompt_key(seen[place])

        partner = partner_of(index, len(self), key)
        return with_mismatch(row, seen[partner], self._encoder.cutoff_len)

    @property
    def longest(self) -> int:
        """Tokens of the longest item there may be."""
        sequences = 2 if KIND_OF_STAGE[self._config.stage] in ("preference", "feedback") else 1
        return sequences * self._encoder.cutoff_len

    def digest(self) -> str:
        """Identity of the rows in their order: content of the files, what makes tokens of it, the choice of rows."""
        arrays = [part.places for part in self._parts] + [self._order]
        return cache.digest(self._keys, [hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for array in arrays])

    def source(self, index: int) -> Source:
        """File and row number behind one number in an item's `rows`."""
        return self._source(int(self._order[index]))

    def in_flight(self) -> list[Source]:
        """The rows that loader processes were last asked for."""
        slots = self._in_flight.reshape(_SLOTS, -1)
        return [self.source(int(index)) for slot in slots for index in slot[1 : 1 + int(slot[0])]]

    def log_accounting(self) -> None:
        """Prints what became of the rows that were read so far."""
        if self._in_flight.any():
            logger.info("streaming: rows were read by dataloader_num_workers processes; they are not counted here")
            return
        for part in self._parts:
            if part.report.read:
                logger.info("%s; of %d rows", part.report.accounting(), len(part.places))

    # -- rows by number: all data sets laid one after the other ------------------------------------------------------

    def _locate(self, number: int) -> tuple[_Part, int]:
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        part = self._parts[index]
        return part, int(part.places[number - self._starts[index]])

    def _source(self, number: int) -> Source:
        part, place = self._locate(number)
        return part.rows.source(place)

    def tokenize(self, numbers: Sequence[int]) -> dict[int, TokenizedRow]:
        """The usable rows among `numbers`; a row counts in the accounting once, however often it is read.

        Raises:
            DataError: a row is rejected and the configuration does not let it go.
        """
        located = {number: self._locate(number) for number in numbers}
        found: dict[int, TokenizedRow] = {}
        for part in self._parts:
            places = dict.fromkeys(place for owner, place in located.values() if owner is part)
            new = [place for place in places if not part.seen[place]]
            rows = self._tokenize_part(part, new, part.report) if new else {}
            if old := [place for place in places if part.seen[place]]:
                rows |= self._tokenize_part(part, old, DatasetReport(part.spec.name))
            for place in new:
                part.seen[place] = 1
            found |= {
                number: rows[place] for number, (owner, place) in located.items() if owner is part and place in rows
            }
        return found

    def _tokenize_part(self, part: _Part, places: list[int], report: DatasetReport) -> dict[int, TokenizedRow]:
        """The usable rows by place; all of them booked in `report`."""
        rejected = report.rejected
        examples: list[Example] = []
        place_of: dict[Source | None, int] = {}
        for place in places:
            example = book_example(part.rows[place], part.spec, self._config.stage, report)
            if example is not None:
                examples.append(example)
                place_of[example.source] = place
        rows = book_rows(examples, self._encoder, self._config.stage, report)
        arrays = pack_arrays(rows)
        report.keep(arrays, self._ends)
        if report.rejected > rejected and not self._config.skip_bad_rows:
            raise_rejects([report], self._config.allow_untrained_rows)
        return {place_of[row.source]: row for row in rows}

    # -- before the first step ---------------------------------------------------------------------------------------

    def hold_out(self) -> TokenizedRows | None:
        """Takes `val_size` rows out, the same ones as without streaming, and tokenizes them; then mixes the rest."""
        held_rows = None
        numbers: Any = self._order
        if self._config.val_size:
            sources = [self._source(number) for number in range(len(numbers))]
            kept, held = split_validation(sources, self._config.val_size, self._config.seed)
            numbers = np.asarray(kept)
            builder = RowsBuilder()
            for start in range(0, len(held), _BATCH):
                builder.add(pack_arrays(self.tokenize(held[start : start + _BATCH]).values()))
            held_rows = builder.build()
        if self._config.mix_strategy != "concat" and len(self._parts) > 1:
            names = [part.spec.name for part in self._parts]
            numbers = mix_rows(numbers, [len(part.places) for part in self._parts], names, self._config)
        self._order = numbers
        return held_rows

    def preflight(self) -> None:
        """Reads the first rows, so that a wrong layout is found before a model is loaded, and shows one in full.

        Raises:
            DataError: none of them can be used, or one is rejected and the configuration does not let it go.
        """
        numbers = [int(number) for number in self._order[:_LOOK_AHEAD]]
        found = self.tokenize(numbers)
        if not found:
            what = f"none of the first {len(numbers)} rows can be used"
            raise DataError(
                [entry.problem() for part in self._parts for entry in part.report.rejects] + [Problem(what)]
            )
        sets = ", ".join(f"{part.spec.name} {len(part.places):,}" for part in self._parts)
        kind = "in full" if self.window >= len(self) else f"among {self.window:,}"
        logger.info(
            "streaming: %s rows (%s), shuffled %s; tokens are counted as they come", f"{len(self):,}", sets, kind
        )
        logger.info("\n".join(example_lines(next(iter(found.values())), self._encoder.tokenizer.decode)))

    def _note(self, indices: Sequence[int]) -> None:
        """Leaves word of what a loader process is about to read."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        if worker is not None and worker.id < _SLOTS:
            slot = self._in_flight.reshape(_SLOTS, -1)[worker.id]
            noted = indices[:_SLOT_ROWS]
            slot[1 : 1 + len(noted)] = noted
            slot[0] = len(noted)


def _open_part(spec: DatasetSpec, config: RunConfig) -> _Part:
    report = DatasetReport(spec.name, path=str(spec.path))
    rows = RawRows(spec, report)
    places: Any = np.arange(len(rows))
    if spec.split != "train" or spec.num_samples is not None:
        places = np.asarray(select_places(spec, len(rows), config.seed), dtype=np.int64)
    return _Part(spec, rows, places[: config.max_samples], report, bytearray(len(rows)))
