"""JSON and schemas as grammars: what they let through; every walk through the vocabulary ends in valid JSON."""

from __future__ import annotations

import datetime
import json
import random
import re
from typing import Any

import pytest
from tests.serving.conftest import END, make_form

from tunesmith.core.types import ToolCall
from tunesmith.serving.call_grammar import placed
from tunesmith.serving.constraint import GrammarConstraint, _automaton
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.errors import ApiError
from tunesmith.serving.grammar import DEAD, Automaton
from tunesmith.serving.json_grammar import JSON_RULES, OBJECT, SchemaGrammar
from tunesmith.serving.vocabulary import Masks, Vocabulary

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
        {"type": "string", "pattern": "(a"},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": r"(a)\1"},
        {"type": "string", "pattern": "[z-a]"},
        {"type": "string", "pattern": "a{3,2}"},
        {"type": "string", "pattern": "*"},
        {"type": "string", "pattern": 5},
        {"type": "string", "pattern": "a", "maxLength": 3},
        {"type": "string", "format": "iban"},
        {"type": "string", "maxLength": -1},
        {"type": "string", "maxLength": 1.5},
        {"type": "string", "maxLength": 100000},
        {"type": "string", "minLength": 4, "maxLength": 3},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "minimum": 0.1, "maximum": 0.9},
        {"type": "integer", "minimum": "3"},
        {"type": "integer", "minimum": 10**20},
        {"type": "integer", "multipleOf": 0},
        {"type": "integer", "multipleOf": 7, "minimum": 3},
        {"type": "number", "multipleOf": 0.3},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 1},
        {"type": "array", "uniqueItems": True},
        {"type": "date"},
        {"oneOf": []},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"oneOf": [{"type": "object"}, {"type": "object"}]},
        {"type": "object", "required": [["a"]]},
        {"type": "object", "required": ["a"]},
        {"$ref": "other.json"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"enum": []},
        {"type": "string", "anyOf": [{"type": "string"}]},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": 100_000},
        {"type": "array", "minItems": True},
        {"type": "string", "enum": [1, None]},
        {"type": "integer", "const": 1.5},
        {"type": "integer", "format": "int32"},
        {"type": "string", "pattern": "a[^\\s\\S]"},
        {"type": "string", "pattern": "(" * 5000 + "a" + ")" * 5000},
        {"oneOf": [{"const": {"a": 1}}, {"const": {"a": 1.0}}]},
        {"$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}, "$ref": "#/$defs/a"},
        {"properties": 3},
        False,
    ],
)
def test_what_cannot_be_held_to_is_refused(schema: Any) -> None:
    with pytest.raises(ApiError) as caught:
        automaton(schema)
    assert caught.value.status == 400
    assert "schema" in caught.value.message


def test_what_names_a_type_narrows_its_list() -> None:
    machine = automaton({"type": ["integer", "null"], "enum": [1, 2.0, 2.5, "a", None, True]})
    assert [text for text in ("1", "2.0", "null") if not fits(machine, text)] == []
    assert [text for text in ("2.5", '"a"', "true") if fits(machine, text)] == []


def walked(constraint: GrammarConstraint, seed: int, most: int = 400) -> list[int]:
    """Tokens drawn at random from the allowed ones; what ends or closes is drawn more often, else nothing would end."""
    rng, ids = random.Random(seed), []
    by_id = constraint.masks.vocabulary.by_id
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
        ids = walked(GrammarConstraint(Masks(machine, vocabulary)), seed)
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
    vocabulary = Vocabulary(form.tokenizer, (END,))
    for machine, texts in (
        (Automaton(OBJECT, JSON_RULES), (b'{"a": "b', b'{"a": "\xc3')),
        (
            automaton({"type": "string", "minLength": 2, "maxLength": 40}),
            (b'"', b'"a', b'"abc', b'"\xc3', b'"\xc3\xa4'),
        ),
        (automaton({"type": "string", "maxLength": 3}), (b'"', b'"ab', b'"abc')),
        (automaton({"type": "string", "minLength": 3}), (b'"', b'"abcd')),
    ):
        masks = Masks(machine, vocabulary)
        for text in texts:
            state = machine.move_all(machine.first(), text)
            assert sorted(masks.allowed(state)) == sorted(vocabulary.all_tokens.fitting(machine, state)), text


def test_special_tokens_are_never_allowed_but_to_end() -> None:
    form = make_form()
    vocabulary = Vocabulary(form.tokenizer, (END,))
    assert not set(vocabulary.by_id) & set(form.tokenizer.all_special_ids)
    constraint = GrammarConstraint(Masks(automaton({"const": 1}), vocabulary))
    (one,) = constraint([]).tolist()
    assert constraint([one]).tolist() == [END]
    assert constraint([7, 8, 9]).tolist() == [END]  # what was never allowed ends


@pytest.mark.parametrize("template", ["qwen", "default", "llama3", "mistral", "glm4", "qwen3", "minimax1", "phi4_mini"])
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
    machine = _automaton(placed(tools), None, dialect.tool_format)
    for call in (ToolCall("weather", {"city": "Köln"}), ToolCall("weather", {}), ToolCall("clock", {"x": [1]})):
        text = dialect.tool_format.calls_text([call], False)
        assert fits(machine, text)
        parsed = dialect.tool_format.parse(text, tools)
        assert parsed is not None
        assert parsed.calls == (call,)
    assert not fits(machine, dialect.tool_format.calls_text([ToolCall("weather", {"city": "Bonn"})], False))
    assert not fits(machine, dialect.tool_format.calls_text([ToolCall("other", {})], False))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"minLength": 2, "maxLength": 3}, ["ab", "äöü", "🙂🙂", 'a"', "a\\b"], ["", "a", "abcd", "🙂🙂🙂🙂"]),
        ({"minLength": 1}, ["a", "a" * 50], [""]),
        ({"pattern": "^[A-Z]{2}-\\d+$"}, ["AB-1", "XY-2024"], ["A-1", "AB-", "ab-1", "AB-1 "]),
        ({"pattern": "fox"}, ["fox", "a fox!", "🙂fox"], ["fo", "", "f ox"]),
        ({"pattern": "^a|b$"}, ["a", "axx", "xxb", "b"], ["xa", "bx", ""]),
        ({"pattern": "^(yes|no)$"}, ["yes", "no"], ["maybe", "yesno"]),
        ({"pattern": r"^[^\"\\]*$"}, ["abc", "ä"], ['a"', "a\\"]),
        ({"pattern": r'^["\\]+$'}, ['"', '\\"'], ["a", ""]),
        ({"pattern": "^[一-龥]{1,3}$"}, ["你好", "狐"], ["a", "你好你好", ""]),
        ({"pattern": r"^\w+\s\w+$"}, ["a b", "foo_1\tbar"], ["ab", "a-b c"]),
        ({"pattern": "^(a*)*b?$"}, ["", "aaa", "aab", "b"], ["ba", "c"]),
        ({"pattern": "^.$"}, ["a", "🙂", '"'], ["", "ab", "\n"]),
        ({"pattern": r"^\u00e4\x41$"}, ["äA"], ["ä"]),
        ({"format": "date"}, ["2024-02-28", "1999-12-31"], ["2024-13-01", "2024-02-30", "2024-2-1"]),
        ({"format": "date-time"}, ["2024-02-28T12:00:00Z", "2024-02-28T23:59:59.5+01:00"], ["2024-02-28", "24"]),
        ({"format": "time"}, ["12:00:00Z"], ["25:00:00Z", "12:00"]),
        ({"format": "email"}, ["a.b@c.de"], ["a@b", "@c.de", "a b@c.de"]),
        ({"format": "ipv4"}, ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3"]),
        ({"format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
        ({"format": "hostname"}, ["a", "a-b.example"], ["-a", "a..b"]),
        ({"format": "duration"}, ["P3D", "PT5M2S", "P2W"], ["3D"]),
        ({"format": "ipv6"}, ["1:2:3:4:5:6:7:8"], ["1:2"]),
    ],
)
def test_strings(schema: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    machine = automaton({"type": "string", **schema})
    assert [text for text in right if not fits(machine, json.dumps(text, ensure_ascii=False))] == []
    assert [text for text in wrong if fits(machine, json.dumps(text, ensure_ascii=False))] == []


@pytest.mark.parametrize("seed", range(60))
def test_whole_numbers_between_bounds(seed: int) -> None:
    """Every number near the bounds, and of other lengths, is let through or held back as it should be."""
    rng = random.Random(seed)
    low, high = sorted(rng.randint(-(10 ** rng.randint(1, 6)), 10 ** rng.randint(1, 6)) for _ in range(2))
    schema: dict[str, Any] = {"type": "integer", rng.choice(["minimum", "exclusiveMinimum"]): low}
    if rng.random() < 0.7:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = high + 3
    machine = automaton(schema)
    near = [bound + shift for bound in (low, high, 0) for shift in range(-5, 6)]
    for value in [*near, *(rng.randint(-(10**8), 10**8) for _ in range(30))]:
        assert fits(machine, str(value)) is valid(schema, value), (schema, value)
    assert not fits(machine, "-0")
    assert not fits(machine, "01")


@pytest.mark.parametrize("seed", range(60))
def test_numbers_between_bounds(seed: int) -> None:
    rng = random.Random(seed)
    low, high = sorted(round(rng.uniform(-20, 20), rng.randint(0, 3)) for _ in range(2))
    schema: dict[str, Any] = {"type": "number", rng.choice(["minimum", "exclusiveMinimum"]): low}
    if rng.random() < 0.7:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = round(high + 1, 3)
    machine = automaton(schema)
    digits = [
        f"{bound + shift:.{places}f}"
        for bound in (low, round(high + 1, 3), 0)
        for shift in (-1, -0.1, -0.001, 0, 0.001, 0.1, 1)
        for places in (0, 1, 2, 3, 4)
    ]
    for text in digits:
        if float(text) == 0 and text.startswith("-"):
            continue
        assert fits(machine, text) is valid(schema, float(text)), (schema, text)
    assert not fits(machine, "1e3")


def valid(schema: dict[str, Any], value: float) -> bool:
    """What JSON Schema says about a number."""
    return (
        value >= schema.get("minimum", value)
        and value > schema.get("exclusiveMinimum", value - 1)
        and value <= schema.get("maximum", value)
        and value < schema.get("exclusiveMaximum", value + 1)
    )


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 20}, "0 5 20", "-5 3 25"),
        ({"type": "integer", "multipleOf": 7}, "0 7 -14 700 98", "1 -6 13"),
        ({"type": "integer", "multipleOf": 100}, "0 100 -2500", "10 150"),
        ({"type": "number", "multipleOf": 0.01}, "0 1.25 -3.1 7", "1.234"),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 1}, "", ""),
        ({"type": "number", "multipleOf": 2, "minimum": 0, "maximum": 4}, "0 2 4", "1 2.0 6"),
        ({"type": "integer", "multipleOf": 1}, "5 -3", "1.5"),
        ({"type": ["integer", "null"], "minimum": 3}, "3 null", "2"),
    ],
)
def test_multiples(schema: dict[str, Any], right: str, wrong: str) -> None:
    if not right:
        with pytest.raises(ApiError):
            automaton(schema)
        return
    machine = automaton(schema)
    assert [text for text in right.split() if not fits(machine, text)] == []
    assert [text for text in wrong.split() if fits(machine, text)] == []


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}


def test_exactly_one_of_several() -> None:
    """As pydantic writes unions that are told apart by a field."""
    schema = {
        "$defs": {"Cat": CAT, "Dog": DOG},
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}, {"type": "null"}],
        "discriminator": {"propertyName": "kind"},
    }
    machine = automaton(schema)
    assert fits(machine, '{"kind": "cat", "lives": 9}')
    assert fits(machine, '{"kind": "wolf"}')
    assert fits(machine, "null")
    assert not fits(machine, '{"kind": "dog", "lives": 9}')
    for overlapping in (
        [CAT, CAT],
        [CAT, {"type": "object"}],
        [{"type": "string"}, {"const": "a"}],
        [{}, {"type": "null"}],
        [{"const": 1}, {"const": 1.0}],
    ):
        with pytest.raises(ApiError, match="anyOf"):
            automaton({"oneOf": overlapping})


def test_a_walk_through_bounded_strings_and_numbers() -> None:
    form = make_form()
    schema = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]+$"},
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            "born": {"type": "string", "format": "date"},
        },
        "required": ["code", "name", "age", "share", "born"],
    }
    masks = Masks(automaton(schema), Vocabulary(form.tokenizer, form.end_token_ids))
    finished = 0
    for seed in range(15):
        ids = walked(GrammarConstraint(masks), seed)
        if len(ids) == 400:
            continue
        finished += 1
        value = json.loads(b"".join(masks.vocabulary.by_id[i] for i in ids).decode())  # never half a character
        assert 1 <= len(value["name"]) <= 12
        assert 0 <= value["age"] <= 130
        assert 0 <= value["share"] < 1
        assert re.fullmatch("[a-z]{2,4}-[0-9]+", value["code"])
        datetime.date.fromisoformat(value["born"])
    assert finished > 8


def test_grammars_are_made_once() -> None:
    vocabulary = Vocabulary(make_form().tokenizer, (END,))
    made = [vocabulary.masks_of(key, lambda: automaton({"const": 1})) for key in "aab"]
    assert made[0] is made[1] is not made[2]
    for place in range(40):
        vocabulary.masks_of(str(place), lambda: automaton({"const": 1}))
    assert vocabulary.masks_of("a", lambda: automaton({"const": 1})) is not made[0]
