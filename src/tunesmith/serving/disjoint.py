"""Types and equality of values as JSON Schema has them, and whether at most one of several schemas can fit a value.

The last is what makes oneOf the same as anyOf. No grammars here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

Resolve = Callable[[str], Any]
_MOST_STEPS = 16
_NAMES = ((bool, "boolean"), (int | float, "number"), (str, "string"), (list, "array"), (dict, "object"))


def are_disjoint(schemas: Sequence[Any], resolve: Resolve) -> bool:
    """True only where it is certain: other types, other values, or objects told apart by a required property.

    Args:
        schemas: of a oneOf.
        resolve: a reference to the schema behind it.
    """
    found = [_followed(schema, resolve) for schema in schemas]
    return all(_differ(a, b, resolve) for a, b in combinations(found, 2))


def _differ(a: dict[str, Any], b: dict[str, Any], resolve: Resolve, *, deep: bool = True) -> bool:
    ours, theirs = _values(a), _values(b)
    if ours is not None and theirs is not None:
        return ours.isdisjoint(theirs)
    kinds, others = _kinds(a), _kinds(b)
    if kinds is not None and others is not None and kinds.isdisjoint(others):
        return True
    if not deep or kinds != {"object"} or others != {"object"}:
        return False
    shared = set(a.get("required") or ()) & set(b.get("required") or ())
    pairs = [[_followed((one.get("properties") or {}).get(name), resolve) for one in (a, b)] for name in shared]
    return any(_differ(first, second, resolve, deep=False) for first, second in pairs)


def _followed(schema: Any, resolve: Resolve) -> dict[str, Any]:
    for _ in range(_MOST_STEPS):
        if not isinstance(schema, dict):
            return {}
        if isinstance(schema.get("$ref"), str):
            schema = resolve(schema["$ref"])
        elif isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1:
            schema = schema["allOf"][0]
        else:
            return schema
    return {}


def _values(schema: dict[str, Any]) -> set[str] | None:
    """The values that a schema lists; None: it lists none."""
    if "const" in schema:
        return {_written(schema["const"])}
    if isinstance(schema.get("enum"), list):
        return {_written(value) for value in schema["enum"]}
    return None


def _written(value: Any) -> str:
    """The same for equal values: 1 and 1.0 are equal in JSON Schema."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_of_type(value: Any, name: object) -> bool:
    """Whether JSON Schema counts a value to a type; 1.0 is an integer there."""
    if name == "integer":
        return _kind(value) == "number" and value % 1 == 0
    return _kind(value) == name


def _kinds(schema: dict[str, Any]) -> set[str] | None:
    """Types of JSON that a schema lets through, whole numbers as numbers; None: any."""
    if "const" in schema:
        return {_kind(schema["const"])}
    if isinstance(schema.get("enum"), list):
        return {_kind(value) for value in schema["enum"]}
    named = schema.get("type")
    if named is None:
        return {"object"} if "properties" in schema else None
    return {"number" if kind == "integer" else str(kind) for kind in (named if isinstance(named, list) else [named])}


def _kind(value: Any) -> str:
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "null")
