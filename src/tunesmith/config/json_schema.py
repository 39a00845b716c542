"""A JSON Schema of the configuration file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from tunesmith.config import legacy
from tunesmith.config.schema import ALIASES, KEYS, Key

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_SIMPLE = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict[str, Any]": "object"}
_REFERENCE = {"type": "string", "pattern": r"\$\{[^}]+\}"}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of one YAML or JSON file for any command."""
    properties = {name: _property(known) for name, known in KEYS.items()}
    for alias, name in ALIASES.items():
        properties[alias] = {**properties[name], "description": f"The same as {name}."}
    for old in legacy.NAMES:
        properties[old] = {"description": "A name of older versions.", "deprecated": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tunesmith configuration",
        "description": "One run; every command takes the keys that it uses from the same file.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _property(known: Key) -> dict[str, Any]:
    text = " ".join(part for part in (known.help, known.note) if part)
    if known.not_yet:
        text = f"Not built yet ({known.not_yet}). {text}"
    default = list(known.default) if isinstance(known.default, tuple) else known.default
    return {"description": text, "default": default, "anyOf": _forms(known)}


def _forms(known: Key) -> list[dict[str, Any]]:
    if known.is_list:
        item = {"type": "number"} if known.kinds[0] == "tuple[float, ...]" else {"type": "string"}
        if known.choices:
            item = {"enum": list(known.choices)}  # type: ignore[dict-item]
        forms: list[dict[str, Any]] = [{"type": "array", "items": item}, {"type": "string"}]
    elif known.choices:
        forms = [{"enum": [*known.choices, *_spellings(known)]}, _REFERENCE]
    else:
        bounds = {_BOUNDS[name]: bound for name, bound in known.bounds.items()}
        forms = [{"type": _SIMPLE[kind], **bounds} for kind in known.kinds]
        if "str" not in known.kinds:
            forms.append(_REFERENCE)
    return [*forms, {"type": "null"}]


def _spellings(known: Key) -> list[Any]:
    """Other spellings of the choices; `no` and `off` without quotes are booleans to editors that follow YAML 1.1."""
    words: list[Any] = list(known.value_names)
    if "no" in known.choices or {"false", "off"} & set(words):
        words.append(False)
    if "true" in words:
        words.append(True)
    return words
