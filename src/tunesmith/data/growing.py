"""Training rows that are used while they are tokenized: rows of a step are made when they are asked for, until all are.

Only for sets of which every row must be usable: then a row's number, and so the order of training, is known beforehand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.log import get_logger
from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.dataset import Dataset, Job
from tunesmith.data.flight import Flight
from tunesmith.data.parts import Parts
from tunesmith.data.rows import TrainItem, TrainRows, as_item, concat_rows
from tunesmith.data.workers import Workers

logger = get_logger(__name__)

_NICENESS = 10
"""Training goes first: its threads wait for one another, so one core that is shared halves all of them."""


class Filling:
    """Data sets on their way into the cache, made by other processes and put in order by a thread.

    Args:
        jobs: the data sets.
        parts: the same, to be read by number.
        count: processes.
    """

    def __init__(self, jobs: Sequence[Job], parts: Parts, count: int) -> None:
        self.n_processes = count
        self._jobs = [replace(job, is_silent=True) for job in jobs]
        wanted = {job.key: part for job, part in zip(jobs, parts.members, strict=True) if not job.is_done}
        self._workers = Workers(wanted, count, _NICENESS)
        self._found: list[Dataset] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tokenizing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = [job.run(self._workers) for job in self._jobs]
        except BaseException as error:  # it is raised where somebody waits for the rows
            self._error = error
        finally:
            self._workers.close()

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once."""
        return not self._thread.is_alive()

    def wait(self) -> list[Dataset]:
        """All of them.

        Raises:
            DataError: the files cannot be read any more, or a process died.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def published(self) -> TrainRows | None:
        """The rows as another process finds them in the cache; None while some are not there."""
        if not all(cache.holds(job.key) for job in self._jobs):
            return None
        found = [cache.load(job.key) for job in self._jobs]
        return None if None in found else TrainRows(concat_rows([rows for rows, _ in filter(None, found)]))


class GrowingRows(Sequence[TrainItem]):
    """A map-style data set for the trainer; the same items in the same order as `TrainRows` of the finished rows.

    Args:
        parts: makes rows that are asked for.
        order: numbers of the rows to train on, in all data sets laid one after the other.
        filling: makes all rows.
        finish: what becomes of them once they are made; raises where one is not usable.
        longest: tokens of the longest item there may be.
    """

    def __init__(
        self,
        parts: Parts,
        order: Any,
        filling: Filling,
        finish: Callable[[list[Dataset]], TrainRows],
        longest: int,
    ) -> None:
        self._parts, self._order, self._filling, self._finish = parts, order, filling, finish
        self._most = longest
        self._whole: TrainRows | None = None
        self._elsewhere: TrainRows | None = None
        self._flight = Flight()

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: list[int]) -> list[TrainItem]:
        """The items of a step."""
        from torch.utils.data import get_worker_info

        if get_worker_info() is not None:
            return self._in_loader(indices)
        self.check()
        if self._whole is not None:
            return [self._whole[index] for index in indices]
        found = self._make(indices)
        if len(found) < len(set(indices)):
            return [self.complete()[index] for index in indices]  # raises, with the rows that cannot be used
        return [as_item([found[index]], [index]) for index in indices]

    def _in_loader(self, indices: list[int]) -> list[TrainItem]:
        """The same in a process of the data loader, which cannot wait; a bad row is raised in the main process."""
        self._flight.note(indices)
        if self._elsewhere is None:
            self._elsewhere = self._filling.published()
        if self._elsewhere is not None:
            return [as_item([self._elsewhere.rows[int(self._order[index])]], [index]) for index in indices]
        found = self._make(indices)
        return [as_item([found[index]], [index]) if index in found else as_item([], []) for index in indices]

    def _make(self, indices: Sequence[int]) -> dict[int, TokenizedRow]:
        """Usable rows by index, made now; the accounting is the filling's."""
        numbers = {index: int(self._order[index]) for index in indices}
        found = self._parts.tokenize(dict.fromkeys(numbers.values()), self._parts.new_reports())
        return {index: found[number] for index, number in numbers.items() if number in found}

    def check(self) -> None:
        """Takes over the finished rows once they are there.

        Raises:
            DataError: one of them cannot be used.
        """
        if self._whole is None and self._filling.is_done:
            self.complete()

    def complete(self) -> TrainRows:
        """Waits until all rows are there.

        Raises:
            DataError: one of them cannot be used.
        """
        if self._whole is None:
            if not self._filling.is_done:
                logger.info("waiting for the rows that are still being tokenized")
            self._whole = self._finish(self._filling.wait())
        return self._whole

    @property
    def is_complete(self) -> bool:
        """Whether all rows are there."""
        return self._whole is not None

    @property
    def longest(self) -> int:
        """Tokens of the longest row; while rows are missing, of the longest there may be."""
        return self._most if self._whole is None else self._whole.longest

    def digest(self) -> str:
        """Identity of the rows in their order; waits for them."""
        return self.complete().digest()

    def source(self, index: int) -> Source:
        """File and row number behind one number in an item's `rows`."""
        return self._parts.source(int(self._order[index]))

    def in_flight(self) -> list[Source]:
        """The rows that loader processes were last asked for."""
        return [self.source(index) for index in self._flight.indices()]


def complete(rows: Any) -> None:
    """Waits for rows that are still growing; others are complete.

    Raises:
        DataError: one of them cannot be used.
    """
    if isinstance(rows, GrowingRows):
        rows.complete()


def check(rows: Any) -> None:
    """Takes over rows that have grown since.

    Raises:
        DataError: one of them cannot be used.
    """
    if isinstance(rows, GrowingRows):
        rows.check()
