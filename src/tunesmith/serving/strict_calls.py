"""Answers that may be text or calls as the model likes, but whose calls of strict tools fit the tools' schemas."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tunesmith.core.types import ToolCall
from tunesmith.inference.answer import Tools
from tunesmith.serving.call_grammar import arguments_of, heads_of_calls, placed
from tunesmith.serving.free_text import LateGrammar
from tunesmith.serving.grammar import DEAD, Node, alt
from tunesmith.serving.json_grammar import JSON_RULES, OBJECT


def text_or_calls(
    tools: Tools, strict: Collection[str], thought_words: tuple[str, str] | None, is_thinking: bool
) -> LateGrammar:
    """Free text, and calls from where one begins.

    Args:
        tools: of the request.
        strict: names of those whose calls must fit; at least one.
        thought_words: marks around a thought that may open the answer.
        is_thinking: the prompt has opened it.

    Raises:
        ApiError: a schema that cannot be held to, or calls that are not written as JSON.
    """
    rules: dict[str, Node] = dict(JSON_RULES)
    arguments = {
        tool["name"]: arguments_of(tool, place, "strict", rules) if tool["name"] in strict else OBJECT
        for place, tool in placed(tools.schemas)
    }
    places = {tool["name"]: f"{place}.function.strict" for place, tool in placed(tools.schemas)}
    named = {name: place for name, place in places.items() if name in strict}
    heads = heads_of_calls(tools.format, arguments, named, only_one=tools.most == 1)
    opening, closing = (word.strip().encode() for word in thought_words or ("", ""))
    words = (opening, closing) if thought_words else None
    return LateGrammar(alt(), rules, heads=heads, thought_words=words, is_thinking=is_thinking)


@dataclass(frozen=True, slots=True)
class Held:
    """Whether calls that were read out of an answer are what strict tools demand.

    A model may write a call in a way that is read, but that nobody could see coming; such a text is no call.

    Attributes:
        tools: of the request.
        strict: names of those whose calls must fit.
        grammar: what the answer was held to. It is not walked here, since the engine's thread walks it.
    """

    tools: Tools
    strict: frozenset[str]
    grammar: LateGrammar

    def __call__(self, text: str, calls: Sequence[ToolCall]) -> bool:
        """Whether every call of a strict tool in `text`, an answer without its thought, was written as it must be."""
        if not any(call.name in self.strict for call in calls):
            return True
        grammar = LateGrammar(self.grammar.start, self.grammar.rules, heads=self.grammar.heads)
        raw = text.strip().encode()
        found = grammar.head_in(raw)
        if found is None:
            return False
        head, place = found
        state = grammar.move_all(grammar.move_all(grammar.at(head.rest), head.given), raw[place:])
        if state == DEAD or not grammar.may_end(state):
            return False
        behind = self.tools.format.parse(head.start + raw[place:].decode(), self.tools.schemas)
        n_before = len(calls) - (len(behind.calls) if behind else 0)
        return not any(call.name in self.strict for call in calls[:n_before])
