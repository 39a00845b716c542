"""Pairs of a better and a worse answer to the questions of rows: another temperature or model, then a judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.core.types import Message
from tunesmith.synthesis.calls import Asker, Call, CallFailedError
from tunesmith.synthesis.chunking import Chunk
from tunesmith.synthesis.filters import fault_of
from tunesmith.synthesis.prompts import answer_question, judge_question, language_of
from tunesmith.synthesis.replies import Entry
from tunesmith.synthesis.rows import Failure, Pair, Row
from tunesmith.synthesis.sentences import script_of
from tunesmith.synthesis.support import Ground
from tunesmith.synthesis.tolerant import without_thoughts
from tunesmith.synthesis.verdicts import chosen

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_MARGIN = 0.1
"""What one answer must stand better on the source than the other, as a share of its words."""


@dataclass(slots=True)
class PairMaker:
    """Asks for second answers and has them judged.

    Attributes:
        config: of `data make`.
        model: name that calls carry.
        is_local: the generator is a model of our engine.
        asker: answers calls.
        chunks: by name.
    """

    config: RunConfig
    model: str
    is_local: bool
    asker: Asker
    chunks: dict[str, Chunk]

    def call(self, row: Row) -> Call:
        """The call for the second answer to the question of a row."""
        passage = self.chunks[row.group].text
        messages = answer_question(passage, _question(row), language_of(script_of(passage)))
        return self._call(messages, self.config.second_temperature, "second", self.config.second_model or self.model)

    def _call(self, messages: tuple[Message, ...], temperature: float, purpose: str, model: str) -> Call:
        most = 16 if purpose == "judge" and self.is_local else self.config.max_new_tokens
        extra = self.config.extra_body or {}
        return Call(messages, model, temperature, self.config.top_p, most, purpose=purpose, extra=extra)

    async def fill(self, row: Row) -> list[Pair | Failure]:
        """The pair of a row, or why there is none.

        Raises:
            TunesmithError: no call will succeed.
        """
        try:
            reply = await self.asker.ask(self.call(row))
            second = without_thoughts(reply.text).strip()
            if not second or second == row.output:
                return [_failure(row, "the second answer is empty" if not second else "both answers are the same")]
            better = await self._by_model(row, second) if self.config.judge == "model" else self._by_rule(row, second)
        except CallFailedError as error:
            return [_failure(row, error.reason, error.detail)]
        if better is None:
            return [_failure(row, "no answer is clearly better", second)]
        worse = second if better == row.output else row.output
        return [Pair(row, better, worse, self.config.judge)]

    def _by_rule(self, row: Row, second: str) -> str | None:
        """The answer that stands better on the source, if one does."""
        chunk = self.chunks[row.group]
        ground = Ground(chunk.source.text, chunk.start, chunk.end)
        script = script_of(chunk.text)
        scores = {}
        for answer in (row.output, second):
            fault = fault_of(Entry(row.instruction, answer), self.config, script)
            unknown = ground.unknown_numbers(row.instruction, answer)
            scores[answer] = -1.0 if fault or unknown else ground.share(row.instruction, answer)
        if abs(scores[row.output] - scores[second]) < _MARGIN:
            return None
        return max(scores, key=lambda answer: scores[answer])

    async def _by_model(self, row: Row, second: str) -> str | None:
        """The answer that a model prefers in both orders, so that its liking for the first place cancels."""
        passage = self.chunks[row.group].text
        language = language_of(script_of(passage))
        picks = []
        for answers in ((row.output, second), (second, row.output)):
            messages = judge_question(passage, _question(row), answers, language)
            reply = await self.asker.ask(self._call(messages, 0.0, "judge", self.model))
            letter = chosen(reply.text)
            picks.append(answers["AB".index(letter)] if letter else None)
        return picks[0] if picks[0] == picks[1] else None


def _question(row: Row) -> str:
    """The question with the turns before it."""
    before = [text for question, answer in row.history for text in (question, answer)]
    return "\n".join([*before, row.instruction])


def _failure(row: Row, reason: str, detail: str = "") -> Failure:
    return Failure(row.id, reason, row.source.name, row.group, row.kind, detail[:500], row.instruction, order=row.order)
