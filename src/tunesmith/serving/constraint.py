"""Which tokens may come next, where a request asks for JSON, a JSON Schema, or for calls that fit their tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.tools import ToolFormat
from tunesmith.inference.dialect import Asked
from tunesmith.serving.call_grammar import arguments_of, demanded_calls, placed
from tunesmith.serving.errors import bad_request, not_supported
from tunesmith.serving.free_text import LateGrammar
from tunesmith.serving.grammar import DEAD, Automaton, Node, alt
from tunesmith.serving.json_grammar import JSON_RULES, SchemaGrammar
from tunesmith.serving.requests import ChatRequest, ResponseFormat, ToolChoiceIn
from tunesmith.serving.strict_calls import Held, text_or_calls
from tunesmith.serving.vocabulary import Masks, Vocabulary

if TYPE_CHECKING:
    import torch

_ANY_OBJECT = {"type": "object"}


@dataclass(slots=True)
class GrammarConstraint:
    """Allows the tokens that a grammar allows; serves all answers of a request.

    Attributes:
        masks: of the grammar.
    """

    masks: Masks
    _places: dict[tuple[int, int], int] = field(default_factory=dict)

    def __call__(self, token_ids: Sequence[int]) -> torch.Tensor | None:
        """Ids of the tokens that may follow an answer so far; None: any."""
        return self.masks.of(self._state(tuple(token_ids)))

    def _state(self, token_ids: tuple[int, ...]) -> int:
        key = (len(token_ids), hash(token_ids))
        if key not in self._places:
            if token_ids:
                before = self._places.get((len(token_ids) - 1, hash(token_ids[:-1])))
                if before is None:
                    before = self._walk(token_ids[:-1])
                self._places[key] = self._walk(token_ids[-1:], before)
            else:
                self._places[key] = self.masks.automaton.first()
        return self._places[key]

    def _walk(self, token_ids: Sequence[int], state: int | None = None) -> int:
        automaton, read_as = self.masks.automaton, self.masks.vocabulary.read_as
        here = automaton.first() if state is None else state
        for token_id in token_ids:
            here = DEAD if here == DEAD else automaton.move_all(here, read_as.get(token_id, b""))
        return here


def constrained(
    request: ChatRequest, asked: Asked, tool_format: ToolFormat, vocabulary: Vocabulary
) -> tuple[Asked, GrammarConstraint | None]:
    """What `response_format`, `tool_choice` and `strict` demand: how the answer is read, and which tokens may come.

    Raises:
        ApiError: a schema that cannot be held to, or calls that this template writes in no such form.
    """
    choice, wanted = request.tool_choice, request.response_format
    must_call = choice not in (None, "none", "auto")
    demands_json = wanted is not None and wanted.type != "text"
    if not must_call and not demands_json:
        return _held_when_called(request, asked, vocabulary)
    if not must_call and asked.is_thinking:
        raise not_supported("response_format", "this model's template always begins with a thought; JSON cannot")
    vocabulary.prepare()
    tools: list[tuple[str, Mapping[str, Any]]] = []
    if asked.tools is not None:
        name = choice.function.name if isinstance(choice, ToolChoiceIn) else None
        tools = [(place, tool) for place, tool in placed(asked.tools.schemas) if name in (None, tool["name"])]
    # A call that must be made leaves no room for JSON; where both may come, the answer is the one or the other.
    schema = None if must_call or wanted is None else _schema_of(wanted)
    key = json.dumps([tools, schema])
    return asked, GrammarConstraint(vocabulary.masks_of(key, lambda: _automaton(tools, schema, tool_format)))


def _schema_of(wanted: ResponseFormat) -> dict[str, Any]:
    """The schema of the answer; that of any object for `json_object`."""
    if wanted.type == "json_object":
        return _ANY_OBJECT
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise bad_request("response_format.json_schema.schema is missing", "response_format")
    return wanted.json_schema.schema_


def _automaton(
    tools: Sequence[tuple[str, Mapping[str, Any]]], schema: dict[str, Any] | None, tool_format: ToolFormat
) -> Automaton:
    """An answer that fits the schema, or a call of one of the tools in the form that the template's tool format has."""
    rules: dict[str, Node] = dict(JSON_RULES)
    named = [(tool["name"], arguments_of(tool, place, "tool_choice", rules)) for place, tool in tools]
    ways = demanded_calls(tool_format, named)
    if schema is not None:
        grammar = SchemaGrammar(schema, "response_format.json_schema.schema")
        rules |= grammar.rules
        ways.append(grammar.start)
    return Automaton(alt(*ways), rules)


def _held_when_called(
    request: ChatRequest, asked: Asked, vocabulary: Vocabulary
) -> tuple[Asked, GrammarConstraint | None]:
    """The answer is text or calls as the model likes; calls of strict tools fit their schemas."""
    strict = frozenset(tool.function.name for tool in request.tools or [] if tool.function.strict)
    tools = asked.tools
    if not strict or tools is None:
        return asked, None
    vocabulary.prepare()
    key = json.dumps(["auto", tools.schemas, sorted(strict), tools.most, asked.thought_words, asked.is_thinking])
    masks = vocabulary.masks_of(key, lambda: text_or_calls(tools, strict, asked.thought_words, asked.is_thinking))
    assert isinstance(masks.automaton, LateGrammar)
    held = Held(tools, strict, masks.automaton)
    return replace(asked, tools=replace(tools, accepts=held)), GrammarConstraint(masks)
