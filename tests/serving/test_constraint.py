"""JSON and schemas as grammars: what they let through; every walk through the vocabulary ends in valid JSON."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.serving.conftest import END, make_form

from tunesmith.core.types import ToolCall
from tunesmith.serving.constraint import GrammarConstraint, Vocabulary, _calling
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.errors import ApiError
from tunesmith.serving.grammar import DEAD, Automaton
from tunesmith.serving.json_grammar import JSON_RULES, OBJECT, SchemaGrammar

_BOSS = {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"boss": {"$ref": "#/$defs/boss"}}}]}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"enum": ["ä", "b"]}, "maxItems": 2},
        "boss": {"$ref": "#/$defs/boss"},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
    "$defs": {
        "boss": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"boss": {"$ref": "#/$defs/boss"}}}]}
    },
}


def automaton(schema: Any) -> Automaton:
    grammar = SchemaGrammar(schema, "schema")
    return Automaton(grammar.start, grammar.rules)


def fits(machine: Automaton, text: str) -> bool:
    state = machine.move_all(machine.first(), text.encode())
    return state != DEAD and machine.may_end(state)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"a": 1}', '{"a":-0.5e+3,"b":[true,false,null,"x"]}', '{\n  "ä": {"é": []}\n}', '{"a": "\\u00e9\\n\\"🙂"}'],
)
def test_any_object(text: str) -> None:
    json.loads(text)
    assert fits(Automaton(OBJECT, JSON_RULES), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a"}',
        '{"a": 01}',
        '{"a": 1,}',
        "{'a': 1}",
        '{"a": "\n"}',
        '{"a": "\\ud800"}',
        '{"a": .5}',
        "{} x",
    ],
)
def test_no_object(text: str) -> None:
    assert not fits(Automaton(OBJECT, JSON_RULES), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "A", "tags": []}',
        '{"name": "A", "age": 3, "tags": ["ä", "b"]}',
        '{"name": "A", "age": null, "tags": ["b"], "boss": {"boss": {"boss": null}}}',
        '{"name": "A", "tags": [], "boss": {}}',
    ],
)
def test_a_schema_lets_through(text: str) -> None:
    assert fits(automaton(PERSON), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "A"}',
        '{"tags": [], "name": "A"}',
        '{"name": 1, "tags": []}',
        '{"name": "A", "age": 1.5, "tags": []}',
        '{"name": "A", "tags": ["c"]}',
        '{"name": "A", "tags": ["b", "b", "b"]}',
        '{"name": "A", "tags": [], "more": 1}',
        '{"name": "A", "tags": [], }',
    ],
)
def test_a_schema_holds_back(text: str) -> None:
    assert not fits(automaton(PERSON), text)


def test_other_forms_of_schemas() -> None:
    assert fits(automaton({"type": "object", "additionalProperties": {"type": "integer"}}), '{"a": 1, "b": 2}')
    assert not fits(automaton({"type": "object", "additionalProperties": {"type": "integer"}}), '{"a": "b"}')
    assert fits(automaton({"type": "object", "properties": {}, "additionalProperties": False}), "{}")
    assert fits(automaton({"type": "array", "items": {"type": "number"}, "minItems": 2}), "[1, 2.5, 3]")
    assert not fits(automaton({"type": "array", "items": {"type": "number"}, "minItems": 2}), "[1]")
    assert fits(automaton({"type": "array", "maxItems": 0}), "[]")
    assert fits(automaton({"const": {"a": [1]}}), '{"a": [1]}')
    assert fits(automaton({}), '"anything"')
    assert fits(automaton({"properties": {"a": {"type": "boolean"}}}), '{"a": true}')
    assert fits(automaton({"allOf": [{"type": "null"}], "title": "N"}), "null")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "string", "maxLength": 3},
        {"type": "integer", "minimum": 3},
        {"type": "date"},
        {"oneOf": [{"type": "null"}]},
        {"type": "object", "required": ["a"]},
        {"$ref": "other.json"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"enum": []},
        {"type": "string", "anyOf": [{"type": "string"}]},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": 1000},
        {"properties": 3},
        False,
    ],
)
def test_what_cannot_be_held_to_is_refused(schema: Any) -> None:
    with pytest.raises(ApiError) as caught:
        automaton(schema)
    assert caught.value.status == 400
    assert "schema" in caught.value.message


def walked(constraint: GrammarConstraint, seed: int, most: int = 400) -> list[int]:
    """Tokens drawn at random from the allowed ones; what ends or closes is drawn more often, else nothing would end."""
    rng, ids = random.Random(seed), []
    by_id = constraint.vocabulary.by_id
    while len(ids) < most:
        allowed = constraint(ids).tolist()
        assert allowed
        if END in allowed:
            return ids
        closing = [i for i in allowed if by_id[i] in (b'"', b"}", b"]", b'"}', b"1")]
        ids.append(rng.choice(closing if closing and rng.random() < 0.5 else allowed))
    return ids


@pytest.mark.parametrize("schema", [PERSON, None])
def test_random_walks_through_a_vocabulary_are_valid_json(schema: Any) -> None:
    form = make_form()
    vocabulary = Vocabulary(form.tokenizer, form.end_token_ids)
    machine = Automaton(OBJECT, JSON_RULES) if schema is None else automaton(schema)
    finished = 0
    for seed in range(30):
        ids = walked(GrammarConstraint(machine, vocabulary), seed)
        if len(ids) == 400:
            continue
        finished += 1
        raw = b"".join(vocabulary.by_id[i] for i in ids)
        value = json.loads(raw.decode(errors="replace"))
        assert isinstance(value, dict)
        if schema:
            assert set(value) <= set(PERSON["properties"])
            assert {"name", "tags"} <= set(value)
    assert finished > 15


def test_tokens_inside_strings_are_found_without_a_walk() -> None:
    """The short way through SAFE gives what the long way gives."""
    form = make_form()
    constraint = GrammarConstraint(Automaton(OBJECT, JSON_RULES), Vocabulary(form.tokenizer, (END,)))
    state = constraint.automaton.move_all(constraint.automaton.first(), b'{"a": "b')
    long_way = constraint.vocabulary.all_tokens.fitting(constraint.automaton, state)
    assert sorted(constraint.allowed(state)) == sorted(long_way)
    assert len(long_way) > 100


def test_special_tokens_are_never_allowed_but_to_end() -> None:
    form = make_form()
    vocabulary = Vocabulary(form.tokenizer, (END,))
    assert not set(vocabulary.by_id) & set(form.tokenizer.all_special_ids)
    constraint = GrammarConstraint(automaton({"const": 1}), vocabulary)
    (one,) = constraint([]).tolist()
    assert constraint([one]).tolist() == [END]
    assert constraint([7, 8, 9]).tolist() == [END]  # what was never allowed ends


@pytest.mark.parametrize("template", ["qwen", "default", "llama3", "mistral", "glm4", "qwen3"])
def test_demanded_calls_are_what_the_format_reads(template: str) -> None:
    dialect = Dialect(make_form(template))
    tools = [
        {
            "name": "weather",
            "description": "",
            "parameters": {"type": "object", "properties": {"city": {"enum": ["Köln"]}}},
        },
        {"name": "clock", "description": ""},
    ]
    machine = _calling(tools, dialect)
    for call in (ToolCall("weather", {"city": "Köln"}), ToolCall("weather", {}), ToolCall("clock", {"x": [1]})):
        text = dialect.tool_format.calls_text([call], False)
        assert fits(machine, text)
        parsed = dialect.tool_format.parse(text, tools)
        assert parsed is not None
        assert parsed.calls == (call,)
    assert not fits(machine, dialect.tool_format.calls_text([ToolCall("weather", {"city": "Bonn"})], False))
    assert not fits(machine, dialect.tool_format.calls_text([ToolCall("other", {})], False))
