"""`streaming`: rows are counted before the first step and read, rendered and tokenized when their step comes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.dataset import cache_key, encoder_version
from tunesmith.data.flat import pack_arrays
from tunesmith.data.flight import Flight
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.mismatch import partner_of, prompt_key, with_mismatch
from tunesmith.data.mix import split_and_mix
from tunesmith.data.parts import Parts, open_part
from tunesmith.data.report import example_lines, raise_rejects
from tunesmith.data.rows import RowsBuilder, TokenizedRows, TrainItem, as_item
from tunesmith.data.texts import pieces_of, text_start
from tunesmith.data.tokenize import Encoder

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

_LOOK_AHEAD = 20
_BATCH = 1000


class StreamRows(Sequence[TrainItem]):
    """A map-style data set that keeps no token; the trainer asks for the rows of a step at once.

    A rejected row stops the run, or gives an item without rows where the configuration lets it go.

    Attributes:
        window: rows that the order is shuffled among.
        reports: accounting of each data set; every row counts once, though every epoch reads it again.
    """

    def __init__(self, config: RunConfig, encoder: Encoder, specs: Sequence[DatasetSpec]) -> None:
        self._config, self._encoder = config, encoder
        self._parts = Parts([open_part(spec, config, encoder) for spec in specs])
        self._order: Any = np.arange(len(self._parts))
        self.reports = self._parts.new_reports()
        self._seen = bytearray(len(self._parts))
        self.window = config.buffer_size
        version = encoder_version(encoder)
        self._keys = [cache_key(spec, config, version) for spec in specs]
        self._flight = Flight()

    # -- what the trainer asks ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: list[int]) -> list[TrainItem]:
        """The items of a step, tokenized together."""
        self._flight.note(indices)
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
        arrays = [part.places for part in self._parts.members] + [self._order]
        return cache.digest(self._keys, [hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for array in arrays])

    def source(self, index: int) -> Source:
        """File and row number behind one number in an item's `rows`."""
        return self._parts.source(int(self._order[index]))

    def in_flight(self) -> list[Source]:
        """The rows that loader processes were last asked for."""
        return [self.source(index) for index in self._flight.indices()]

    def log_accounting(self) -> None:
        """Prints what became of the rows that were read so far."""
        if self._flight.indices():
            logger.info("streaming: rows were read by dataloader_num_workers processes; they are not counted here")
            return
        for part, report in zip(self._parts.members, self.reports, strict=True):
            if report.read:
                logger.info("%s; of %d rows", report.accounting(), len(part))

    # -- rows by number: all data sets laid one after the other ------------------------------------------------------

    def tokenize(self, numbers: Sequence[int]) -> dict[int, TokenizedRow]:
        """The usable rows among `numbers`; a row counts in the accounting once, however often it is read.

        Raises:
            DataError: a row is rejected and the configuration does not let it go.
        """
        new = [number for number in dict.fromkeys(numbers) if not self._seen[number]]
        old = [number for number in dict.fromkeys(numbers) if self._seen[number]]
        rejected = sum(report.rejected for report in self.reports)
        found = self._parts.tokenize(new, self.reports)
        if sum(report.rejected for report in self.reports) > rejected and not self._config.skip_bad_rows:
            raise_rejects(self.reports, self._config.allow_untrained_rows)
        for number in new:
            self._seen[number] = 1
        return found | self._parts.tokenize(old, self._parts.new_reports())

    # -- before the first step ---------------------------------------------------------------------------------------

    def hold_out(self) -> TokenizedRows | None:
        """Takes `val_size` rows out, the same ones as without streaming, and tokenizes them; then mixes the rest."""
        self._order, held = split_and_mix(self._parts.sources, self._parts.sizes, self._parts.names, self._config)
        if not self._config.val_size:
            return None
        builder = RowsBuilder()
        for start in range(0, len(held), _BATCH):
            builder.add(pack_arrays(self.tokenize(held[start : start + _BATCH]).values()))
        return builder.build()

    def preflight(self) -> None:
        """Reads the first rows, so that a wrong layout is found before a model is loaded, and shows one in full.

        Raises:
            DataError: none of them can be used, or one is rejected and the configuration does not let it go.
        """
        numbers = [int(number) for number in self._order[:_LOOK_AHEAD]]
        found = self.tokenize(numbers)
        if not found:
            what = f"none of the first {len(numbers)} rows can be used"
            raise DataError([entry.problem() for report in self.reports for entry in report.rejects] + [Problem(what)])
        sets = ", ".join(f"{name} {size:,}" for name, size in zip(self._parts.names, self._parts.sizes, strict=True))
        kind = "in full" if self.window >= len(self) else f"among {self.window:,}"
        logger.info(
            "streaming: %s rows (%s), shuffled %s; tokens are counted as they come", f"{len(self):,}", sets, kind
        )
        logger.info("\n".join(example_lines(next(iter(found.values())), self._encoder.tokenizer.decode)))
