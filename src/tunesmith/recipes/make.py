"""`tunesmith data make`: long text to a data set of questions and answers, every row with its place in the text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import runs
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.synthesis.chunking import Chunk
    from tunesmith.synthesis.counting import TokenCounter
    from tunesmith.synthesis.entries import EntryMaker
    from tunesmith.synthesis.journal import Journal
    from tunesmith.synthesis.pool import Crew
    from tunesmith.synthesis.rows import Account, Pair, Row

NAME = "instruction_dataset"
OUTPUT = "output"
_logger = get_logger(__name__)


def make(config: RunConfig) -> str:
    """Makes the data set that a configuration describes, or goes on with one.

    Args:
        config: for the command `data make`.

    Returns:
        The accounting, for the user.

    Raises:
        DataError: the text cannot be read, a name is taken, or no entry could be used.
        GeneratorError: the generator cannot be asked.
        TrainingError: another process works in the folder.
        Interrupted: a signal came; the same command goes on.
    """
    from tunesmith.synthesis.counting import make_counter
    from tunesmith.synthesis.estimate import estimate
    from tunesmith.synthesis.output import Output

    counter = make_counter(config)
    folder = Path(config.output_dir or OUTPUT).expanduser()
    chunks = find_chunks(config, folder, counter)
    output = Output(config, folder, config.dataset_name or NAME)
    output.check()
    if config.dry_run:
        return estimate(config, folder, chunks, counter)
    with runs.Run(folder).working("data make"):
        for chunk in chunks:
            chunk.source.keep()
        runs.write_atomic(folder / "make_args.yaml", config.to_yaml())
        return asyncio.run(_Making(config, output, chunks, counter).run())


def find_chunks(config: RunConfig, folder: Path, counter: TokenCounter) -> list[Chunk]:
    """The chunks of all texts, or those of a folder that `data split` wrote.

    Raises:
        DataError: nothing to read, or not readable.
    """
    from tunesmith.synthesis.chunk_files import read_chunks
    from tunesmith.synthesis.chunking import chunks_of
    from tunesmith.synthesis.texts import read_texts

    if config.chunks:
        return read_chunks(Path(config.chunks).expanduser(), counter)
    texts = read_texts(config, folder)
    chunks = [chunk for text in texts for chunk in chunks_of(text, counter, config.chunk_tokens, config.chunk_overlap)]
    of_texts = texts[0].name if len(texts) == 1 else f"{len(texts)} texts"
    _logger.info("%d chunks of up to %d tokens out of %s", len(chunks), config.chunk_tokens, of_texts)
    return chunks


class _Making:
    """One run: entries, then pairs where they are asked for, then the files."""

    def __init__(self, config: RunConfig, output: Any, chunks: Sequence[Chunk], counter: TokenCounter) -> None:
        from tunesmith.synthesis.opening import make_meter
        from tunesmith.synthesis.pool import Crew
        from tunesmith.synthesis.retrying import Gate

        self.config = config
        self.output = output
        self.chunks = chunks
        self.meter = make_meter(config, counter)
        self.gate = Gate(config.requests_per_minute)
        self.crew: Crew = Crew(config.concurrency)

    async def run(self) -> str:
        """Does it, and gives the accounting."""
        from tunesmith.synthesis.opening import open_journal

        journal = open_journal(self.config, self.output.folder, self.meter, self.gate, self.crew)
        try:
            with self.crew.stoppable():
                account = await self._entries(journal)
                pairs = await self._pairs(journal, account) if self.config.preference else None
        finally:
            await journal.close()
        text = self.output.write(account, pairs, self.meter, self.gate, journal)
        if not account.rows:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in account.reasons[:3])
            where = str(self.output.folder / "failures.jsonl")
            raise DataError([Problem(f"no entry could be used: {reasons}", where, "the file holds what was answered")])
        return text

    async def _entries(self, journal: Journal) -> Account[Row]:
        from tunesmith.synthesis.entries import EntryMaker
        from tunesmith.synthesis.opening import is_local, model_name
        from tunesmith.synthesis.repeats import without_repeats
        from tunesmith.synthesis.rows import Account
        from tunesmith.synthesis.splitting import held_out, split

        maker: EntryMaker = EntryMaker(
            self.config, model_name(self.config), is_local(self.config), journal, self.output.accepted
        )
        groups = list(maker.groups(self.chunks))
        account: Account[Row] = Account(sum(len(group) for group in groups))
        self.output.begin()
        await self._through("entries", account.requested, groups, maker.fill, account.take)
        rows, repeated = without_repeats(account.rows)
        spans = {chunk.name: (str(chunk.source.file), chunk.start, chunk.end) for chunk in self.chunks}
        held = held_out(spans, self.config.eval_share, self.config.seed)
        train, evaluation, shared = split(rows, held, spans)
        settled: Account[Row] = Account(account.requested, [*train, *evaluation])
        settled.failures = [*account.failures, *repeated, *shared]
        settled.settle()
        self.output.held = {row.id for row in evaluation}
        return settled

    async def _pairs(self, journal: Journal, account: Account[Row]) -> Account[Pair]:
        from tunesmith.synthesis.opening import is_local, model_name
        from tunesmith.synthesis.preference import PairMaker
        from tunesmith.synthesis.rows import Account

        chunks = {chunk.name: chunk for chunk in self.chunks}
        maker = PairMaker(self.config, model_name(self.config), is_local(self.config), journal, chunks)
        pairs: Account[Pair] = Account(len(account.rows))
        await self._through("pairs", pairs.requested, account.rows, maker.fill, pairs.take)
        pairs.settle()
        return pairs

    async def _through(self, title: str, total: int, things: Sequence[Any], work: Any, take: Any) -> None:
        """Works through things with a bar."""
        from tunesmith.synthesis.progress import progress
        from tunesmith.synthesis.rows import Failure

        with progress(title, total, runs.Run(self.output.folder)) as advance:

            def done(results: list[Any]) -> None:
                take(results)
                failed = sum(isinstance(result, Failure) for result in results)
                advance(len(results) - failed, failed, f"{self.meter.cost:.4f} spent" if self.meter.cost else "")

            await self.crew.work_through(things, work, done)
