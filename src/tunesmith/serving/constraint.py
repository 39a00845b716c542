"""Which tokens may come next, where a request asks for JSON, a JSON Schema, or a tool call that must be made."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.core.types import ToolCall
from tunesmith.inference.dialect import Asked
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.errors import ApiError, bad_request, not_supported
from tunesmith.serving.grammar import DEAD, Automaton, Node, Text, TokenTrie, alt, seq
from tunesmith.serving.json_grammar import JSON_RULES, OBJECT, SAFE, SchemaGrammar
from tunesmith.serving.requests import ChatRequest, ToolChoiceIn

if TYPE_CHECKING:
    import torch

_PROBE = "\ue0f1"
_SAMPLES = b"a Z~\xc3\x80"
"""Where these lead back to the same state, all of SAFE does: nothing but a string's inside takes them all."""
_HEX_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """The bytes of every token that may stand in an answer; made at the first use, it takes a moment.

    Args:
        tokenizer: byte-level or sentencepiece.
        end_ids: what ends an answer.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.size = len(tokenizer)

    def prepare(self) -> None:
        """Makes the tables now, so that the engine need not wait for them between two steps."""
        _ = self.by_id, self.safe_ids, self.mixed_tokens, self.all_tokens

    @functools.cached_property
    def _tokens(self) -> list[tuple[int, bytes]]:
        special = set(self._tokenizer.all_special_ids) | set(self.end_ids)
        special |= {i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        read = _byte_level if self._is_byte_level else _sentencepiece
        found = []
        for token_id, name in enumerate(self._tokenizer.convert_ids_to_tokens(range(self.size))):
            text = read(name) if name is not None and token_id not in special else b""
            if text:
                found.append((token_id, text))
        return found

    @functools.cached_property
    def _is_byte_level(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and "ByteLevel" in str(json.loads(backend.to_str()).get("decoder"))

    @functools.cached_property
    def safe_ids(self) -> list[int]:
        """Tokens that may stand inside a JSON string as they are."""
        return [token_id for token_id, text in self._tokens if SAFE.issuperset(text)]

    @functools.cached_property
    def all_tokens(self) -> TokenTrie:
        """Every token."""
        return TokenTrie(self._tokens)

    @functools.cached_property
    def mixed_tokens(self) -> TokenTrie:
        """Those that may not."""
        return TokenTrie([(token_id, text) for token_id, text in self._tokens if not SAFE.issuperset(text)])

    @functools.cached_property
    def by_id(self) -> Mapping[int, bytes]:
        """Bytes of a token."""
        return dict(self._tokens)


def _byte_level(name: str) -> bytes:
    """Bytes of a byte-level token's name; empty for a name that is written otherwise."""
    table = _byte_table()
    return bytes(table[char] for char in name) if all(char in table for char in name) else name.encode()


def _sentencepiece(name: str) -> bytes:
    match = _HEX_BYTE.fullmatch(name)
    return bytes.fromhex(match.group(1)) if match else name.replace("\u2581", " ").encode()


@functools.cache
def _byte_table() -> dict[str, int]:
    """GPT-2's visible characters for bytes: printable ones stand for themselves, the others begin at U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


@dataclass(slots=True)
class GrammarConstraint:
    """Allows the tokens that a grammar allows; serves all answers of a request.

    Attributes:
        automaton: the grammar.
        vocabulary: bytes of tokens.
    """

    automaton: Automaton
    vocabulary: Vocabulary
    _masks: dict[int, Any] = field(default_factory=dict)
    _places: dict[tuple[int, int], int] = field(default_factory=dict)

    def __call__(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Ids of the tokens that may follow; the end tokens alone once the text is whole."""
        import torch

        state = self._state(tuple(token_ids))
        if state not in self._masks:
            self._masks[state] = torch.tensor(self.allowed(state), dtype=torch.long)
        return self._masks[state]

    def allowed(self, state: int) -> list[int]:
        """Ids of the tokens that may follow in a state."""
        if state == DEAD:
            return list(self.vocabulary.end_ids)  # only where a token came that was not allowed
        automaton, vocabulary = self.automaton, self.vocabulary
        ends = list(vocabulary.end_ids) if automaton.may_end(state) else []
        if any(automaton.move(state, byte) != state for byte in _SAMPLES):
            return vocabulary.all_tokens.fitting(automaton, state) + ends
        return vocabulary.safe_ids + vocabulary.mixed_tokens.fitting(automaton, state) + ends

    def _state(self, token_ids: tuple[int, ...]) -> int:
        key = (len(token_ids), hash(token_ids))
        if key not in self._places:
            if token_ids:
                before = self._places.get((len(token_ids) - 1, hash(token_ids[:-1])))
                if before is None:
                    before = self._walk(token_ids[:-1])
                self._places[key] = self._walk(token_ids[-1:], before)
            else:
                self._places[key] = self.automaton.first()
        return self._places[key]

    def _walk(self, token_ids: Sequence[int], state: int | None = None) -> int:
        here = self.automaton.first() if state is None else state
        for token_id in token_ids:
            here = DEAD if here == DEAD else self.automaton.move_all(here, self.vocabulary.by_id.get(token_id, b""))
        return here


def constraint_of(
    request: ChatRequest, asked: Asked, dialect: Dialect, vocabulary: Vocabulary
) -> GrammarConstraint | None:
    """What `response_format` and `tool_choice` demand; None: nothing.

    Raises:
        ApiError: a schema that cannot be held to, or calls that this template writes in no such form.
    """
    choice, wanted = request.tool_choice, request.response_format
    must_call = choice not in (None, "none", "auto")
    demands_json = wanted is not None and wanted.type != "text"
    if demands_json and asked.tools is not None:
        raise not_supported("response_format", "JSON and tools in one request are not built; send tool_choice: none")
    if must_call or demands_json:
        vocabulary.prepare()
    if must_call:
        assert asked.tools is not None
        name = choice.function.name if isinstance(choice, ToolChoiceIn) else None
        tools = [tool for tool in asked.tools.schemas if name in (None, tool["name"])]
        return GrammarConstraint(_calling(tools, dialect), vocabulary)
    if not demands_json:
        return None
    if asked.is_thinking:
        raise not_supported("response_format", "this model's template always begins with a thought; JSON cannot")
    assert wanted is not None
    if wanted.type == "json_object":
        return GrammarConstraint(Automaton(OBJECT, JSON_RULES), vocabulary)
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise bad_request("response_format.json_schema.schema is missing", "response_format")
    grammar = SchemaGrammar(wanted.json_schema.schema_, "response_format.json_schema.schema")
    return GrammarConstraint(Automaton(grammar.start, grammar.rules), vocabulary)


def _calling(tools: Sequence[Mapping[str, Any]], dialect: Dialect) -> Automaton:
    """One call of one of the tools, in the form that the template's tool format writes."""
    rules: dict[str, Node] = dict(JSON_RULES)
    calls = [_call(tool, dialect, rules, f"tools[{index}]") for index, tool in enumerate(tools)]
    return Automaton(alt(*calls), rules)


def _call(tool: Mapping[str, Any], dialect: Dialect, rules: dict[str, Node], place: str) -> Node:
    written = dialect.tool_format.calls_text([ToolCall(tool["name"], {_PROBE: 0})], False)
    probe = json.dumps({_PROBE: 0}, ensure_ascii=False)
    before, found, after = written.partition(probe)
    if not found:
        raise not_supported(
            "tool_choice", "calls in this model's form cannot be demanded, they are not JSON; send tool_choice: auto"
        )
    arguments: Node = OBJECT
    if tool.get("parameters"):
        try:
            grammar = SchemaGrammar(tool["parameters"], f"{place}.function.parameters")
        except ApiError as error:
            error.message = f"tool_choice demands arguments that fit the schema. {error.message}"
            raise
        arguments = grammar.start
        rules |= grammar.rules
    return seq(Text(before.encode()), arguments, Text(after.encode()))
