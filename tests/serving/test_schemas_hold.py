"""What an answer is held to is what an independent validator demands: random schemas, random walks through them."""

from __future__ import annotations

import json
import random
import re
import string
from typing import Any

import jsonschema_rs
import pytest
from tests.serving.conftest import END, make_form
from tests.serving.test_constraint import automaton, walked

from tunesmith.serving.constraint import GrammarConstraint
from tunesmith.serving.errors import ApiError
from tunesmith.serving.json_values import FORMATS
from tunesmith.serving.vocabulary import Masks, Vocabulary

MOST_TOKENS = 250
ATOMS = [*"ab_-/é狐", ".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.", r"\u00e9", "[a-f]", "[^a-f]"]
ATOMS += [r"[^\d]", r"[^\W]", r"[\d_]", r"[\W\d]", r"[^\s\D]", r'["\\]', "[一-龥]"]
QUANTIFIERS = ["", "", "", "?", "*", "+", "{2}", "{1,3}", "{1}?", "+?"]
TEXTS = ["", "a", "Ä", 'with "quotes"', "1", "🙂", "new\nline"]
VALUES: list[Any] = [*TEXTS, 0, -1, 1.5, True, None, [], [1, "a"], {}, {"a": {"b": None}}]
NOT_BUILT = [
    "uniqueItems",
    "not",
    "patternProperties",
    "minProperties",
    "propertyNames",
    "if",
    "contains",
    "prefixItems",
]


class Draw:
    """Random schemas; the same seed gives the same."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def whole(self) -> dict[str, Any]:
        """A schema that may refer to a definition, which may refer to itself."""
        schema = self.schema(3)
        if self.rng.random() < 0.3:
            tree = {"type": "object", "properties": {"value": self.schema(1), "next": {"$ref": "#/$defs/tree"}}}
            schema = {"type": "array", "items": {"anyOf": [schema, {"$ref": "#/$defs/tree"}]}, "$defs": {"tree": tree}}
        return schema

    def schema(self, depth: int) -> Any:
        kinds = [self.text, self.text, self.number, self.number, self.listed, self.simple]
        if depth:
            kinds += [self.array, self.object, self.object, self.map, self.union]
        made = self.rng.choice(kinds)(depth - 1)
        if self.rng.random() < 0.02:
            made = {**made, self.rng.choice(NOT_BUILT): {}}
        return made

    def simple(self, depth: int) -> dict[str, Any]:
        names = ["boolean", "null", "string", "integer", "number"]
        return {"type": self.rng.choice([*names, self.rng.sample(names, 2)])}

    def listed(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        made: dict[str, Any] = {"enum": rng.sample(VALUES, 3)} if rng.random() < 0.7 else {"const": rng.choice(VALUES)}
        return {**made, "type": rng.choice(["string", "number", ["null", "array"]])} if rng.random() < 0.3 else made

    def text(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        made: dict[str, Any] = {} if rng.random() < 0.2 else {"type": "string"}
        form = rng.randrange(4)
        if form == 0:
            made |= {"minLength": (least := rng.randrange(4)), "maxLength": least + rng.randrange(4)}
        elif form == 1:
            made["format"] = rng.choice(list(FORMATS))
        elif form == 2:
            made["pattern"] = self.pattern()
        return made

    def pattern(self) -> str:
        rng = self.rng
        parts = [rng.choice(ATOMS) + rng.choice(QUANTIFIERS) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            parts.append(f"({rng.choice(ATOMS)}|{rng.choice(ATOMS)}x)" + rng.choice(QUANTIFIERS))
        body = "".join(parts)
        return rng.choice(["", "^"]) + body + rng.choice(["", "$"])

    def number(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        made: dict[str, Any] = {"type": rng.choice(["integer", "number", ["number", "null"]])}
        low, high = sorted(self.bound() for _ in range(2))
        if rng.random() < 0.6:
            made[rng.choice(["minimum", "exclusiveMinimum"])] = low
        if rng.random() < 0.6:
            made[rng.choice(["maximum", "exclusiveMaximum"])] = high
        if rng.random() < 0.3:
            made["multipleOf"] = rng.choice([1, 2, 5, 7, 0.5])
        return made

    def bound(self) -> float:
        rng = self.rng
        size = 10 ** rng.randint(0, 13)
        return rng.choice([rng.randint(-size, size), rng.randint(-9, 9), round(rng.uniform(-5, 5), rng.randint(1, 4))])

    def array(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "array", "items": self.schema(depth)}
        least = self.rng.randrange(3)
        return made | self.rng.choice([{}, {"minItems": least}, {"minItems": least, "maxItems": least + 1}])

    def object(self, depth: int) -> dict[str, Any]:
        names = self.rng.sample(["a", "b", "ä c", 'q"', "kind"], self.rng.randint(1, 4))
        made: dict[str, Any] = {"type": "object", "properties": {name: self.schema(depth) for name in names}}
        made["required"] = [name for name in names if self.rng.random() < 0.5]
        return made | self.rng.choice([{}, {"additionalProperties": False}, {"additionalProperties": True}])

    def map(self, depth: int) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.schema(depth)}

    def union(self, depth: int) -> dict[str, Any]:
        return {self.rng.choice(["anyOf", "oneOf"]): [self.schema(depth) for _ in range(self.rng.randint(1, 3))]}


def texts_of(schema: dict[str, Any], vocabulary: Vocabulary, seeds: range) -> list[str]:
    """Whole answers that tokens drawn at random came to."""
    masks = Masks(automaton(schema), vocabulary)
    found = [walked(GrammarConstraint(masks), seed, MOST_TOKENS) for seed in seeds]
    by_id = vocabulary.by_id
    return [b"".join(by_id[i] for i in ids).decode() for ids in found if len(ids) < MOST_TOKENS]


def says_where(error: ApiError) -> None:
    assert error.status == 400
    assert error.param == "schema"
    assert re.match(r"schema.*: .", error.message), error.message


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(make_form().tokenizer, (END,))


@pytest.mark.parametrize("part", range(6))
def test_what_comes_is_valid_or_the_schema_is_refused(vocabulary: Vocabulary, part: int) -> None:
    refused = checked = 0
    for seed in range(part * 60, part * 60 + 60):
        schema = Draw(seed).whole()
        try:
            texts = texts_of(schema, vocabulary, range(2))
        except ApiError as error:
            says_where(error)
            refused += 1
            continue
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for text in texts:
            assert validator.is_valid(json.loads(text)), (seed, schema, text)
            checked += 1
    assert refused < 20
    assert checked > 20


def test_patterns_hold_for_ecma_and_for_python(vocabulary: Vocabulary) -> None:
    """Classes such as \\w and \\D mean other characters in other dialects; what comes fits them all."""
    checked = 0
    for seed in range(100):
        pattern = Draw(seed).pattern()
        schema = {"type": "string", "pattern": pattern}
        validator = jsonschema_rs.Draft202012Validator(schema)
        for text in texts_of(schema, vocabulary, range(3)):
            value = json.loads(text)
            assert validator.is_valid(value), (pattern, value)
            assert re.search(pattern, value), (pattern, value)
            checked += 1
    assert checked > 150


@pytest.mark.parametrize("bounds", [{"exclusiveMaximum": 1000}, {"exclusiveMinimum": 99999}, {"maximum": 0.1}])
def test_numbers_hold_as_the_reader_keeps_them(vocabulary: Vocabulary, bounds: dict[str, float]) -> None:
    """999.999999999999999 is below 1000, but 1000.0 once it is read: no more digits come than a double keeps."""
    machine = automaton({"type": "number", **bounds})
    near = ["999.999999999999999", "99999.0000000000000001", "0.1000000000000000001"]
    for text in [*near, *("-" + text for text in near)]:
        state = machine.move_all(machine.first(), text.encode())
        fits = state >= 0 and machine.may_end(state)
        assert not fits or jsonschema_rs.Draft202012Validator(bounds).is_valid(json.loads(text)), text


@pytest.mark.parametrize("keyword", NOT_BUILT)
def test_keywords_that_are_not_built_are_named(keyword: str) -> None:
    nested = {"type": "object", "properties": {"a": {"type": "array", "items": {keyword: {}}}}}
    with pytest.raises(ApiError, match=rf"schema\.properties\.a\.items\.{keyword}: this keyword is not built"):
        automaton(nested)


def test_every_text_that_stands_in_a_schema_comes_as_it_is(vocabulary: Vocabulary) -> None:
    for text in [*TEXTS, *string.printable]:
        assert [json.loads(one) for one in texts_of({"const": text}, vocabulary, range(1))] == [text]
