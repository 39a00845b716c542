"""`tunesmith data dialogue`: one person's words out of novels and scripts, each with what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.config.making_rules import chosen_generator
from tunesmith.core import runs
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.recipes.make import OUTPUT

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.synthesis.dialogue.asking import Passage, SpeakerAsker
    from tunesmith.synthesis.dialogue.speech import Person, Utterance
    from tunesmith.synthesis.journal import Journal
    from tunesmith.synthesis.rows import Account, Row
    from tunesmith.synthesis.texts import SourceText

_logger = get_logger(__name__)


def dialogue(config: RunConfig) -> str:
    """Makes the data set that a configuration describes.

    Args:
        config: for the command `data dialogue`.

    Returns:
        The accounting, for the user.

    Raises:
        DataError: the text cannot be read, nobody has one of the names, or nothing could be used.
        GeneratorError: the generator cannot be asked.
        TrainingError: another process works in the folder.
        Interrupted: a signal came; the same command goes on.
    """
    from tunesmith.synthesis.dialogue.speech import Person, check_person
    from tunesmith.synthesis.texts import read_texts

    folder = Path(config.output_dir or OUTPUT).expanduser()
    texts = read_texts(config, folder)
    person = Person(config.roles)
    spoken = [find_speech(text, person, config.text_layout) for text in texts]
    named = ", ".join(text.name for text in texts)
    check_person(person, "\n".join(text.text for text in texts), [one for said in spoken for one in said], named)
    work = _Dialogue(config, folder, texts, person, spoken)
    work.output.check()
    if config.dry_run:
        return work.estimate()
    with runs.Run(folder).working("data dialogue"):
        for text in texts:
            text.keep()
        runs.write_atomic(folder / "make_args.yaml", config.to_yaml())
        if work.passages and chosen_generator(config) != "none":
            asyncio.run(work.ask())
        return work.finish()


def find_speech(text: SourceText, person: Person, layout: str) -> list[Utterance]:
    """Everything that is said in a text, by rules.

    Args:
        text: a novel or a script.
        person: their names are known.
        layout: auto, script or novel.
    """
    from tunesmith.synthesis.dialogue.novel import read_novel
    from tunesmith.synthesis.dialogue.script import looks_like_script, read_script

    is_script = layout == "script" or (layout == "auto" and looks_like_script(text.text))
    found = read_script(text.text) if is_script else read_novel(text.text, person)
    _logger.info("%s: read as a %s, %d speeches", text.name, "script" if is_script else "novel", len(found))
    return found


class _Dialogue:
    """One run: speakers asked for where rules left them open, then rows and files."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        texts: Sequence[SourceText],
        person: Person,
        spoken: list[list[Utterance]],
    ) -> None:
        from tunesmith.synthesis.counting import Estimate, make_counter
        from tunesmith.synthesis.dialogue.asking import passages_of
        from tunesmith.synthesis.opening import make_meter
        from tunesmith.synthesis.output import Output
        from tunesmith.synthesis.pool import Crew
        from tunesmith.synthesis.retrying import Gate

        self.config = config
        self.texts = texts
        self.person = person
        self.spoken = spoken
        self.output = Output(config, folder, config.dataset_name or texts[0].label)
        self.passages = [
            (place, passage)
            for place, (text, said) in enumerate(zip(texts, spoken, strict=True))
            for passage in passages_of(text, said)
        ]
        asks = self.passages and chosen_generator(config) != "none"
        self.meter = make_meter(config, make_counter(config) if asks else Estimate())
        self.gate = Gate(config.requests_per_minute)
        self.crew = Crew(config.concurrency)
        self.journal: Journal | None = None

    def estimate(self) -> str:
        """What asking for the open speakers would take."""
        from tunesmith.synthesis.cost import prompt_tokens

        lines = [self._counted()[1]]
        if chosen_generator(self.config) == "none" or not self.passages:
            lines.append("no generator is asked: it costs nothing")
        else:
            asker = self._asker(None)
            calls = [asker.call(passage, self.spoken[place]) for place, passage in self.passages]
            asked = sum(prompt_tokens(self.meter.counter, call) for call in calls)
            most = sum(call.max_tokens for call in calls)
            cost = self.meter.price(asked, most) * self.config.max_attempts
            lines.append(f"{len(calls):,} calls for the unclear ones, {asked:,} tokens; cost at most {cost:.4f}")
        return "\n".join([*lines, "nothing was asked and nothing was written; leave dry_run out to begin"])

    def _asker(self, journal: Journal | None) -> SpeakerAsker:
        from tunesmith.synthesis.dialogue.asking import SpeakerAsker
        from tunesmith.synthesis.opening import model_name

        return SpeakerAsker(self.config, model_name(self.config), journal, self.person)

    async def ask(self) -> None:
        """Asks the generator who speaks where rules could not tell."""
        from tunesmith.synthesis.opening import open_journal
        from tunesmith.synthesis.progress import progress

        journal = open_journal(self.config, self.output.folder, self.meter, self.gate, self.crew)
        self.journal = journal
        asker = self._asker(journal)
        found: list[tuple[int, dict[int, Utterance]]] = []
        run, n_open = runs.Run(self.output.folder), sum(len(passage.open) for _, passage in self.passages)

        async def work(item: tuple[int, Passage]) -> tuple[int, dict[int, Utterance], int]:
            place, passage = item
            return place, await asker.fill(passage, self.spoken[place]), len(passage.open)

        try:
            with self.crew.stoppable(), progress("speakers", n_open, run) as advance:

                def done(result: tuple[int, dict[int, Utterance], int]) -> None:
                    place, told, asked = result
                    found.append((place, told))
                    advance(len(told), asked - len(told), "")

                await self.crew.work_through(self.passages, work, done)
        finally:
            await journal.close()
        for place, told in found:
            self.spoken[place] = [told.get(index, one) for index, one in enumerate(self.spoken[place])]

    def finish(self) -> str:
        """Rows, sides and files; gives the accounting."""
        from tunesmith.synthesis.dialogue.exchanges import rows_of
        from tunesmith.synthesis.repeats import without_repeats
        from tunesmith.synthesis.rows import Account
        from tunesmith.synthesis.splitting import held_out

        account: Account[Row] = Account(0)
        for place, (text, said) in enumerate(zip(self.texts, self.spoken, strict=True)):
            part = rows_of(text, place, said, self.person, self.config)
            account.requested += part.requested
            account.rows += part.rows
            account.failures += part.failures
        account.rows, repeated = without_repeats(account.rows)
        account.failures += repeated
        account.settle()
        held = held_out([row.group for row in account.rows], self.config.eval_share, self.config.seed)
        self.output.held = {row.id for row in account.rows if row.group in held}
        self.output.more = self._counted()
        told = self.output.write(account, None, self.meter, self.gate, self.journal)
        if not account.rows:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in account.reasons)
            where = str(self.output.folder / "failures.jsonl")
            raise DataError([Problem(f"nothing that they say answers anything: {reasons}", where, "see the file")])
        return told

    def _counted(self) -> tuple[dict[str, dict[str, int]], str]:
        """Who says how much."""
        said = [one for part in self.spoken for one in part]
        counts = {
            "all": len(said),
            "of_the_person": sum(self.person.is_called(one.speaker) for one in said),
            "unclear": sum(one.speaker is None for one in said),
            "told_by_model": sum(one.found_by == "model" for one in said),
        }
        others = counts["all"] - counts["of_the_person"] - counts["unclear"]
        line = f"{counts['all']:,} speeches: {counts['of_the_person']:,} theirs, {others:,} of others"
        return {"speeches": counts}, f"{line}, {counts['unclear']:,} unclear"
