"""Which tokens may come next, where a request asks for JSON, a JSON Schema, or a tool call that must be made."""

from __future__ import annotations

import bisect
import codecs
import functools
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.core.types import ToolCall
from tunesmith.inference.dialect import Asked
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.errors import ApiError, bad_request, not_supported
from tunesmith.serving.grammar import DEAD, Automaton, Node, Text, TokenTrie, alt, seq
from tunesmith.serving.json_grammar import JSON_RULES, OBJECT, SchemaGrammar
from tunesmith.serving.json_values import CHARACTER, SAFE
from tunesmith.serving.requests import ChatRequest, ResponseFormat, ToolChoiceIn

if TYPE_CHECKING:
    import torch

_PROBE = "\ue0f1"
_ANY_OBJECT = {"type": "object"}
_MOST_GRAMMARS = 16
_MOST_MASKS = 256
"""Of one grammar; each takes four bytes a token."""
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
        self._grammars: OrderedDict[str, Masks] = OrderedDict()

    def masks_of(self, key: str, make: Callable[[], Automaton]) -> Masks:
        """The masks of a grammar, made once for all requests that ask for it.

        Args:
            key: says what the grammar is made from.
            make: makes it.
        """
        found = self._grammars.pop(key) if key in self._grammars else Masks(make(), self)
        self._grammars[key] = found
        if len(self._grammars) > _MOST_GRAMMARS:
            self._grammars.popitem(last=False)
        return found

    def prepare(self) -> None:
        """Makes the tables now, so that the engine need not wait for them between two steps."""
        _ = self.by_id, self.mixed_tokens, self.all_tokens, self._by_length

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

    def within(self, most: float) -> list[int]:
        """Tokens that may stand inside a JSON string as they are, begin with a character and have at most so many."""
        lengths, ids = self._by_length
        return ids[: bisect.bisect_right(lengths, most)]

    @functools.cached_property
    def _by_length(self) -> tuple[list[int], list[int]]:
        """Numbers of characters in order, and the tokens that have them; a character that is begun counts."""
        known = [(n, i) for i, text in self._tokens if SAFE.issuperset(text) and (n := _n_characters(text)) is not None]
        known.sort()
        return [count for count, _ in known], [token_id for _, token_id in known]

    @functools.cached_property
    def all_tokens(self) -> TokenTrie:
        """Every token."""
        return TokenTrie(self._tokens)

    @functools.cached_property
    def mixed_tokens(self) -> TokenTrie:
        """Those that hold something which a JSON string does not hold as it is."""
        return TokenTrie([(token_id, text) for token_id, text in self._tokens if not SAFE.issuperset(text)])

    @functools.cached_property
    def by_id(self) -> Mapping[int, bytes]:
        """Bytes of a token."""
        return dict(self._tokens)


def _n_characters(text: bytes) -> int | None:
    """Characters of some bytes, the last of which may be unfinished; None: they do not begin with a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return len(decoder.decode(text)) + bool(decoder.getstate()[0])
    except UnicodeDecodeError:
        return None


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
class Masks:
    """Which tokens a grammar allows in each of its states; what was found out serves later requests, too.

    Attributes:
        automaton: the grammar.
        vocabulary: bytes of tokens.
    """

    automaton: Automaton
    vocabulary: Vocabulary
    _found: OrderedDict[int, Any] = field(default_factory=OrderedDict)

    def of(self, state: int) -> torch.Tensor:
        """Ids of the tokens that may follow in a state; the end tokens alone once the text is whole."""
        import torch

        if state not in self._found:
            self._found[state] = torch.tensor(self.allowed(state), dtype=torch.int32)
            if len(self._found) > _MOST_MASKS:
                self._found.popitem(last=False)
        self._found.move_to_end(state)
        return self._found[state]

    def allowed(self, state: int) -> list[int]:
        """Ids of the tokens that may follow in a state."""
        if state == DEAD:
            return list(self.vocabulary.end_ids)  # only where a token came that was not allowed
        automaton, vocabulary = self.automaton, self.vocabulary
        ends = list(vocabulary.end_ids) if automaton.may_end(state) else []
        room = automaton.room(state, CHARACTER)
        if room is None:
            return vocabulary.all_tokens.fitting(automaton, state) + ends
        return vocabulary.within(room) + vocabulary.mixed_tokens.fitting(automaton, state) + ends


@dataclass(slots=True)
class GrammarConstraint:
    """Allows the tokens that a grammar allows; serves all answers of a request.

    Attributes:
        masks: of the grammar.
    """

    masks: Masks
    _places: dict[tuple[int, int], int] = field(default_factory=dict)

    def __call__(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Ids of the tokens that may follow an answer so far."""
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
        automaton, by_id = self.masks.automaton, self.masks.vocabulary.by_id
        here = automaton.first() if state is None else state
        for token_id in token_ids:
            here = DEAD if here == DEAD else automaton.move_all(here, by_id.get(token_id, b""))
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
    if not must_call and not demands_json:
        return None
    if not must_call and asked.is_thinking:
        raise not_supported("response_format", "this model's template always begins with a thought; JSON cannot")
    vocabulary.prepare()
    tools: Sequence[Mapping[str, Any]] = ()
    if asked.tools is not None:
        name = choice.function.name if isinstance(choice, ToolChoiceIn) else None
        tools = [tool for tool in asked.tools.schemas if name in (None, tool["name"])]
    # A call that must be made leaves no room for JSON; where both may come, the answer is the one or the other.
    schema = None if must_call or wanted is None else _schema_of(wanted)
    key = json.dumps([tools, schema])
    return GrammarConstraint(vocabulary.masks_of(key, lambda: _automaton(tools, schema, dialect)))


def _schema_of(wanted: ResponseFormat) -> dict[str, Any]:
    """The schema of the answer; that of any object for `json_object`."""
    if wanted.type == "json_object":
        return _ANY_OBJECT
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise bad_request("response_format.json_schema.schema is missing", "response_format")
    return wanted.json_schema.schema_


def _automaton(tools: Sequence[Mapping[str, Any]], schema: dict[str, Any] | None, dialect: Dialect) -> Automaton:
    """An answer that fits the schema, or a call of one of the tools in the form that the template's tool format has."""
    rules: dict[str, Node] = dict(JSON_RULES)
    ways = [_call(tool, dialect, rules, f"tools[{index}]") for index, tool in enumerate(tools)]
    if schema is not None:
        grammar = SchemaGrammar(schema, "response_format.json_schema.schema")
        rules |= grammar.rules
        ways.append(grammar.start)
    return Automaton(alt(*ways), rules)


def _call(tool: Mapping[str, Any], dialect: Dialect, rules: dict[str, Node], place: str) -> Node:
    written = dialect.tool_format.calls_text([ToolCall(tool["name"], {_PROBE: 0})], False)
    probe = json.dumps({_PROBE: 0}, ensure_ascii=False)
    before, found, after = written.partition(probe)
    if not found:
        raise not_supported(
            "tool_choice",
            "in this model's form the arguments of calls are not JSON, so answers cannot be held to it; send "
            "tool_choice: auto without response_format",
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
