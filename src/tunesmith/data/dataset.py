"""Data sets from files to token ids: in batches, by several processes where large, shard by shard into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from tunesmith.core.log import get_logger
from tunesmith.data import cache
from tunesmith.data.booking import book_rows, end_ids, settled_memory
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.examples import read_examples
from tunesmith.data.parts import open_part
from tunesmith.data.progress import progress
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import RowsBuilder, TokenizedRows
from tunesmith.data.sources import data_files
from tunesmith.data.tokenize import Encoder
from tunesmith.data.workers import MOST, Workers, available_cores, can_fork

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

Dataset = tuple[TokenizedRows, DatasetReport]
"""One data set's rows and their accounting."""
SHARD_ROWS = 4096
"""Rows that are read before what was made of them is made to last."""
PARALLEL_BYTES = 4 << 20
"""Size of the files from which several processes are worth their start."""


@dataclass(frozen=True, slots=True)
class Job:
    """One data set that is to be there as token ids.

    Attributes:
        spec: what is read.
        key: its name in the cache; see `cache_key`.
        encoder: tokenizer, template, settings.
        config: `overwrite_cache`, `stage`, `max_samples`, `seed`, `preprocessing_*`.
        is_silent: shows no progress, since something else does.
    """

    spec: DatasetSpec
    key: str
    encoder: Encoder
    config: RunConfig
    is_silent: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the cache seems to have it."""
        return not self.config.overwrite_cache and cache.holds(self.key)

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(path.stat().st_size for path, _ in data_files(self.spec))

    def run(self, workers: Workers | None = None) -> Dataset:
        """The rows with their accounting, out of the cache where nothing they depend on has changed.

        Args:
            workers: processes that make the rows; this one does where they are not for this data set.

        Raises:
            DataError: the files cannot be read, or a process died.
        """
        found = self._cached()
        if found is None:
            try:
                with cache.locked(self.key):
                    found = self._cached() or self._make_on_disk(workers)
            except OSError as error:
                cache.discard(self.key)
                logger.warning("tokenized rows are not kept for the next run: %s", error)
                found = self._make_in_memory(workers)
        else:
            logger.info("%s: tokenized rows taken from %s", self.spec.name, cache.cache_folder(self.key))
        rows, report = found
        report.name = self.spec.name
        return rows, report

    def _cached(self) -> Dataset | None:
        return None if self.config.overwrite_cache else cache.load(self.key)

    def _make_on_disk(self, workers: Workers | None) -> Dataset:
        """Tokenizes into the cache, behind the shards that a process which was stopped left there.

        Raises:
            OSError: the cache cannot be written.
        """
        writer, known = cache.begin(self.key, afresh=self.config.overwrite_cache)
        report = known or DatasetReport(self.spec.name, path=str(self.spec.path))
        if known is not None:
            logger.info("%s: %d rows were read before a stop; going on behind them", self.spec.name, known.read)
        saved = report.read

        def keep(part: TokenizedRows) -> None:
            nonlocal saved
            writer.add(part)
            if report.read - saved >= SHARD_ROWS:
                cache.keep_shard(writer, report)
                saved = report.read

        try:
            self._make(workers, report, keep)
            cache.keep_shard(writer, report)
        finally:
            writer.close()
        cache.publish(self.key, writer)
        found = cache.load(self.key)
        if found is None:
            raise OSError("what was written cannot be read again")
        return found

    def _make_in_memory(self, workers: Workers | None) -> Dataset:
        report, builder = DatasetReport(self.spec.name, path=str(self.spec.path)), RowsBuilder()
        self._make(workers, report, builder.add)
        return builder.build(), report

    def _make(self, workers: Workers | None, report: DatasetReport, keep: Callable[[TokenizedRows], None]) -> None:
        """Reads, renders and tokenizes.

        Args:
            workers: see `run`.
            report: the accounting; what it has read already is passed over.
            keep: takes the usable rows of a batch.
        """
        size = min(self.config.preprocessing_batch_size, SHARD_ROWS)
        with progress(f"tokenizing {self.spec.name}", is_silent=self.is_silent) as advance:
            if workers is not None and self.key in workers:
                report.left_out = workers.parts[self.key].left_out
                for part, read in workers.shards(self.key, report.read, size):
                    report.merge(read)
                    keep(part)
                    advance(read.read)
                return
            for part in self._batches(report, size):
                keep(part)
                advance(len(part))

    def _batches(self, report: DatasetReport, size: int) -> Iterator[TokenizedRows]:
        """The usable rows, made by this process."""
        ends, stage = end_ids(self.encoder), self.config.stage
        examples = read_examples(self.spec, stage, self.config.max_samples, self.config.seed, report)
        with settled_memory():
            while batch := list(islice(examples, size)):
                part = book_rows(batch, self.encoder, stage, report)
                report.keep(part, ends)
                yield part


def jobs_of(specs: Sequence[DatasetSpec], encoder: Encoder, config: RunConfig) -> list[Job]:
    """What there is to do for these data sets."""
    version = encoder_version(encoder) if specs else ""
    return [Job(spec, cache_key(spec, config, version), encoder, config) for spec in specs]


def run_jobs(jobs: Sequence[Job]) -> list[Dataset]:
    """All data sets, one after the other; several processes make what is large and not there yet.

    Raises:
        DataError: see `Job.run`.
    """
    missing = [job for job in jobs if not job.is_done]
    count = n_processes(missing[0].config, available_cores()) if missing else 1
    if count < 2 or sum(job.n_bytes for job in missing) < PARALLEL_BYTES:
        return [job.run() for job in jobs]
    parts = {job.key: open_part(job.spec, job.config, job.encoder) for job in missing}
    with closing(Workers(parts, count)) as workers:
        return [job.run(workers) for job in jobs]


def n_processes(config: RunConfig, cores: int) -> int:
    """Processes that prepare data: `preprocessing_num_workers`, or one for each of `cores`; 1 is this one."""
    return (config.preprocessing_num_workers or min(max(cores, 1), MOST)) if can_fork() else 1


def encoder_version(encoder: Encoder) -> str:
    """Hash of what turns a conversation into ids: code, tokenizer, template, settings."""
    return cache.digest(
        cache.code_version(),
        cache.tokenizer_version(encoder.tokenizer),
        cache.template_version(encoder.template),
        asdict(encoder.settings),
        encoder.cutoff_len,
    )


def cache_key(spec: DatasetSpec, config: RunConfig, version: str) -> str:
    """sha256 over everything that the tokenized rows and their accounting depend on; `version` is the encoder's."""
    layout = {name: value for name, value in asdict(replace(spec, name="")).items() if name != "files"}
    return cache.digest(
        version,
        [(name, cache.hash_file(path)) for path, name in data_files(spec)],
        layout,
        {"stage": config.stage, "max_samples": config.max_samples},
        config.seed if spec.num_samples is not None else None,
    )
