"""JSON and JSON Schema as grammars. A keyword that cannot be held to is refused by name, never passed over.

Objects have their properties in the order of the schema. What one string or number may be is said in json_values.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.serving.disjoint import are_disjoint, is_of_type
from tunesmith.serving.errors import ApiError, not_supported
from tunesmith.serving.finite import without_end
from tunesmith.serving.grammar import Count, Node, Ref, Text, alt, seq
from tunesmith.serving.json_values import (
    BLANK,
    OF_NUMBERS,
    OF_STRINGS,
    SIMPLE,
    STRING,
    NotHeldError,
    is_count,
    number_of,
    string_of,
)

_MOST_ITEMS = 1000
_MOST_NODES = 5000
_NOTES = frozenset(
    {
        *("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"),
        *("readOnly", "writeOnly", "deprecated", "discriminator"),
    }
)
_ACTING = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("enum", "const", "anyOf", "oneOf", "$ref", *OF_STRINGS, *OF_NUMBERS),
    }
)
_OTHER = frozenset({"allOf", "strict"})
_ALONE: Mapping[str, set[str]] = {
    **{name: set() for name in ("$ref", "allOf", "anyOf", "oneOf")},
    **{name: {"type"} for name in ("enum", "const")},
}
"""Keyword -> those that may stand beside it."""

_COMMA = seq(BLANK, b",", BLANK)
VALUE = Ref("value")
OBJECT = Ref("object")


def _list_of(item: Node, opening: bytes, closing: bytes) -> Node:
    return seq(opening, BLANK, alt(b"", seq(item, Count(seq(_COMMA, item), 0, None), BLANK)), closing)


def _map_of(value: Node) -> Node:
    return _list_of(seq(STRING, BLANK, b":", BLANK, value), b"{", b"}")


JSON_RULES: Mapping[str, Node] = {
    "value": alt(*SIMPLE.values(), Ref("object"), Ref("array")),
    "object": _map_of(VALUE),
    "array": _list_of(VALUE, b"[", b"]"),
}
"""Any JSON value, object and array."""


class SchemaGrammar:
    """A JSON Schema as a grammar.

    Args:
        schema: the outermost object.
        param: name of the field, for messages; rules of its own begin with it.

    Attributes:
        start: what the text is.
        rules: what `start` refers to.

    Raises:
        ApiError: a keyword or form that cannot be held to.
    """

    def __init__(self, schema: Mapping[str, Any], param: str) -> None:
        self.rules: dict[str, Node] = dict(JSON_RULES)
        self._root = schema
        self._param = param
        self._count = 0
        self.start = self.node(schema, param)
        for rule in without_end(self.rules):
            raise self._refused(rule, "leads into itself without end, so that no answer fits")

    def node(self, schema: Any, place: str) -> Node:
        """What fits one schema."""
        self._count += 1
        if self._count > _MOST_NODES:
            raise not_supported(self._param, "the schema is too large")
        if schema is True or schema == {}:
            return VALUE
        if not isinstance(schema, dict):
            raise self._refused(place, "is not a schema that an answer could fit")
        unknown = set(schema) - _NOTES - _ACTING - _OTHER
        if unknown:
            raise self._refused(f"{place}.{min(unknown)}", "this keyword is not built")
        return self._node(schema, place)

    def _node(self, schema: dict[str, Any], place: str) -> Node:
        self._check_alone(schema, place)
        if "$ref" in schema:
            return self._reference(schema["$ref"], place)
        if "allOf" in schema:
            if not isinstance(schema["allOf"], list) or len(schema["allOf"]) != 1:
                raise self._refused(f"{place}.allOf", "only one schema can be held to")
            return self.node(schema["allOf"][0], f"{place}.allOf[0]")
        if "const" in schema:
            return self._literals([schema["const"]], schema, f"{place}.const")
        if "enum" in schema:
            if not isinstance(schema["enum"], list):
                raise self._refused(f"{place}.enum", "must be a list of values")
            return self._literals(schema["enum"], schema, f"{place}.enum")
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._any_of(schema[name], f"{place}.{name}", exactly_one=name == "oneOf")
        kinds = schema.get("type") or self._guessed(schema)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return alt(*(self._of_type(kind, schema, place) for kind in kinds))

    def _check_alone(self, schema: dict[str, Any], place: str) -> None:
        """Refuses keywords that would each have to hold at once."""
        for name, allowed in _ALONE.items():
            others = set(schema) - _NOTES - {name, "strict"} - allowed
            if name in schema and others:
                raise self._refused(f"{place}.{name}", f"cannot be combined with {min(others)} here")

    @staticmethod
    def _guessed(schema: dict[str, Any]) -> Any:
        if {"properties", "required", "additionalProperties"} & set(schema):
            return "object"
        return "array" if {"items", "minItems", "maxItems"} & set(schema) else [*SIMPLE, "object", "array"]

    def _of_type(self, kind: Any, schema: dict[str, Any], place: str) -> Node:
        if kind == "object":
            return self._object(schema, place)
        if kind == "array":
            return self._array(schema, place)
        if not isinstance(kind, str) or kind not in SIMPLE:
            raise self._refused(f"{place}.type", f"{kind!r} is no type of JSON Schema")
        try:
            if kind == "string":
                return string_of(schema)
            return number_of(kind, schema) if kind in ("number", "integer") else SIMPLE[kind]
        except NotHeldError as error:
            raise self._refused(f"{place}.{error.keyword}", str(error)) from error

    def _any_of(self, parts: Any, place: str, *, exactly_one: bool) -> Node:
        if not isinstance(parts, list) or not parts:
            raise self._refused(place, "must be a list of schemas")
        nodes = [self.node(part, f"{place}[{i}]") for i, part in enumerate(parts)]
        if exactly_one and not are_disjoint(parts, self._target):
            raise self._refused(place, "an answer could fit two of these at once; use anyOf, or a const that differs")
        return alt(*nodes)

    def _literals(self, values: list[Any], schema: dict[str, Any], place: str) -> Node:
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        fitting = [value for value in values if kinds == [None] or any(is_of_type(value, kind) for kind in kinds)]
        if not fitting:
            raise self._refused(place, "no value of it has the type that is named beside it" if values else "is empty")
        return alt(*(json.dumps(value, ensure_ascii=False).encode() for value in fitting))

    def _reference(self, name: Any, place: str) -> Node:
        if not isinstance(name, str) or not name.startswith("#"):
            raise self._refused(f"{place}.$ref", "only references into the same schema can be followed")
        rule = self._param + name
        if rule not in self.rules:
            target = self._target(name)
            if target is None:
                raise self._refused(f"{place}.$ref", f"{name} leads nowhere")
            self.rules[rule] = VALUE  # stands in while the rule is made: it may refer to itself
            self.rules[rule] = self.node(target, rule)
        return Ref(rule)

    def _target(self, name: str) -> Any:
        """What a reference leads to; None: nowhere."""
        target: Any = self._root
        for part in name.strip("#/").split("/") if name.strip("#/") else []:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target

    def _object(self, schema: dict[str, Any], place: str) -> Node:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise self._refused(place, "properties must be an object, required a list")
        if not all(isinstance(name, str) for name in required):
            raise self._refused(f"{place}.required", "must be a list of names")
        missing = [name for name in required if name not in properties]
        if missing:
            raise self._refused(f"{place}.required", f"{missing[0]!r} is not among the properties")
        if not properties:
            more = schema.get("additionalProperties", True)
            return Text(b"{}") if more is False else _map_of(self.node(more, f"{place}.additionalProperties"))
        pairs = [
            (seq(_key(name), BLANK, b":", BLANK, self.node(value, f"{place}.properties.{name}")), name in required)
            for name, value in properties.items()
        ]
        return seq(b"{", BLANK, _members(pairs), b"}")

    def _array(self, schema: dict[str, Any], place: str) -> Node:
        item = self.node(schema.get("items", {}), f"{place}.items")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        for name, value in (("minItems", least), ("maxItems", most)):
            if value is not None and not is_count(value, _MOST_ITEMS):
                raise self._refused(f"{place}.{name}", f"must be a whole number up to {_MOST_ITEMS}")
        if most is not None and most < least:
            raise self._refused(f"{place}.maxItems", "is less than minItems")
        if most == 0:
            return seq(b"[", BLANK, b"]")
        another = seq(_COMMA, item)
        further = Count(another, max(least - 1, 0), None if most is None else most - 1)
        filled = seq(item, further, BLANK)
        return seq(b"[", BLANK, filled if least else alt(b"", filled), b"]")

    def _refused(self, place: str, why: str) -> ApiError:
        error = not_supported(place, why)
        error.param = self._param
        return error


def _key(name: str) -> Node:
    return Text(json.dumps(name, ensure_ascii=False).encode())


def _members(pairs: list[tuple[Node, bool]]) -> Node:
    """Properties in order; those that are not required may be absent; commas between those that are there."""
    after: Node = BLANK  # behind a member
    first: Node = Text(b"")  # nothing was written yet
    for member, is_required in reversed(pairs):
        with_first, with_after = seq(member, after), seq(_COMMA, member, after)
        first = with_first if is_required else alt(with_first, first)
        after = with_after if is_required else alt(with_after, after)
    return first
