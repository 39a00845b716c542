"""JSON and JSON Schema as grammars. A keyword that cannot be held to is refused by name, never passed over.

Objects have their properties in the order of the schema; whitespace and digits are bounded, so that no answer fills up
with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.serving.errors import ApiError, not_supported
from tunesmith.serving.grammar import Many, Node, OneOf, Ref, Text, alt, one_of, seq, up_to

SAFE = frozenset(range(0x20, 0x100)) - frozenset(b'"\\')
"""Bytes that a JSON string holds as they are; those from 0x80 on are parts of characters."""
_DIGIT = one_of(b"0123456789")
_HEX = one_of(b"0123456789abcdefABCDEF")
_MOST_DIGITS = 15
_MOST_ITEMS = 64
_MOST_INDENT = 16
_MOST_NODES = 5000
_NOTES = frozenset(
    {
        *("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"),
        *("readOnly", "writeOnly", "deprecated"),
    }
)
_ACTING = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("enum", "const", "anyOf", "$ref"),
    }
)
_OTHER = frozenset({"allOf", "strict"})
_ALONE: Mapping[str, set[str]] = {"$ref": set(), "allOf": set(), "anyOf": set(), "enum": {"type"}, "const": {"type"}}
"""Keyword -> those that may stand beside it."""

BLANK = alt(b"", b" ", seq(b"\n", up_to(one_of(b" \t"), _MOST_INDENT)))
_NOT_D = one_of(b"0123456789abcefABCEF")
_CODE = alt(seq(_NOT_D, _HEX, _HEX, _HEX), seq(one_of(b"dD"), one_of(b"01234567"), _HEX, _HEX))
_CHARACTER = alt(OneOf(SAFE), seq(b"\\", alt(one_of(b'"\\/bfnrt'), seq(b"u", _CODE))))
STRING = seq(b'"', Many(_CHARACTER), b'"')
_WHOLE = alt(b"0", seq(one_of(b"123456789"), up_to(_DIGIT, _MOST_DIGITS - 1)))
INTEGER = seq(alt(b"", b"-"), _WHOLE)
_FRACTION = seq(b".", _DIGIT, up_to(_DIGIT, _MOST_DIGITS - 1))
_EXPONENT = seq(one_of(b"eE"), alt(b"", b"+", b"-"), _DIGIT, up_to(_DIGIT, 1))
NUMBER = seq(INTEGER, alt(b"", _FRACTION), alt(b"", _EXPONENT))
_BOOLEAN = alt(b"true", b"false")
_COMMA = seq(BLANK, b",", BLANK)
VALUE = Ref("value")
OBJECT = Ref("object")
_SIMPLE: Mapping[str, Node] = {
    "string": STRING,
    "number": NUMBER,
    "integer": INTEGER,
    "boolean": _BOOLEAN,
    "null": Text(b"null"),
}


def _list_of(item: Node, opening: bytes, closing: bytes) -> Node:
    return seq(opening, BLANK, alt(b"", seq(item, Many(seq(_COMMA, item)), BLANK)), closing)


def _map_of(value: Node) -> Node:
    return _list_of(seq(STRING, BLANK, b":", BLANK, value), b"{", b"}")


JSON_RULES: Mapping[str, Node] = {
    "value": alt(*_SIMPLE.values(), Ref("object"), Ref("array")),
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
            return self._literals([schema["const"]])
        if "enum" in schema:
            if not isinstance(schema["enum"], list) or not schema["enum"]:
                raise self._refused(f"{place}.enum", "must be a list of values")
            return self._literals(schema["enum"])
        if "anyOf" in schema:
            if not isinstance(schema["anyOf"], list) or not schema["anyOf"]:
                raise self._refused(f"{place}.anyOf", "must be a list of schemas")
            return alt(*(self.node(part, f"{place}.anyOf[{i}]") for i, part in enumerate(schema["anyOf"])))
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
        return "array" if {"items", "minItems", "maxItems"} & set(schema) else [*_SIMPLE, "object", "array"]

    def _of_type(self, kind: Any, schema: dict[str, Any], place: str) -> Node:
        if kind == "object":
            return self._object(schema, place)
        if kind == "array":
            return self._array(schema, place)
        if not isinstance(kind, str) or kind not in _SIMPLE:
            raise self._refused(f"{place}.type", f"{kind!r} is no type of JSON Schema")
        return _SIMPLE[kind]

    @staticmethod
    def _literals(values: list[Any]) -> Node:
        return alt(*(json.dumps(value, ensure_ascii=False).encode() for value in values))

    def _reference(self, name: Any, place: str) -> Node:
        if not isinstance(name, str) or not name.startswith("#"):
            raise self._refused(f"{place}.$ref", "only references into the same schema can be followed")
        rule = self._param + name
        if rule not in self.rules:
            target: Any = self._root
            for part in name.strip("#/").split("/") if name.strip("#/") else []:
                target = target.get(part) if isinstance(target, dict) else None
            if target is None:
                raise self._refused(f"{place}.$ref", f"{name} leads nowhere")
            self.rules[rule] = VALUE  # stands in while the rule is made: it may refer to itself
            self.rules[rule] = self.node(target, name)
            if _is_empty_loop(self.rules, rule):
                raise self._refused(f"{place}.$ref", f"{name} refers to nothing but itself")
        return Ref(rule)

    def _object(self, schema: dict[str, Any], place: str) -> Node:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise self._refused(place, "properties must be an object, required a list")
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
            if value is not None and (not isinstance(value, int) or not 0 <= value <= _MOST_ITEMS):
                raise self._refused(f"{place}.{name}", f"must be a whole number up to {_MOST_ITEMS}")
        if most is not None and most < least:
            raise self._refused(f"{place}.maxItems", "is less than minItems")
        if most == 0:
            return seq(b"[", BLANK, b"]")
        another = seq(_COMMA, item)
        following = Many(another) if most is None else up_to(another, most - max(least, 1))
        filled = seq(item, *[another] * (least - 1), following, BLANK)
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


def _is_empty_loop(rules: Mapping[str, Node], name: str) -> bool:
    """Whether a rule leads to itself without a byte in between, which no text could fit."""
    seen: set[str] = set()
    todo: list[Any] = [rules[name]]
    while todo:
        node = todo.pop()
        if isinstance(node, Ref):
            if node.name == name:
                return True
            if node.name not in seen:
                seen.add(node.name)
                todo.append(rules[node.name])
        elif hasattr(node, "parts"):
            todo += node.parts if type(node).__name__ == "Alt" else node.parts[:1]
    return False
