"""Reads a file's layout off its first rows, for `dataset: my.jsonl` without an entry in dataset_info.json."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.catalog import OPENAI_TAGS, Columns, DatasetSpec, Tags
from tunesmith.data.formats.fields import is_weight

KNOWN_SHAPES = (
    "alpaca (instruction, input, output), sharegpt (conversations), openai (messages), prompt/completion, "
    "prompt/chosen/rejected, text"
)


def detect(spec: DatasetSpec, rows: list[dict[str, Any]]) -> tuple[DatasetSpec, str]:
    """The spec with formatting and columns filled in, and the line that tells the user.

    Args:
        spec: with formatting auto.
        rows: the first rows of the file that are objects.

    Raises:
        DataError: the keys fit none of the known layouts.
    """
    keys = _telling_keys(rows)
    found = _chat(rows, keys) or _flat(keys)
    if found is None:
        there = ", ".join(sorted(map(str, keys))) or "none"
        raise DataError(
            [
                Problem(
                    f"the layout is not known; the rows have the columns: {there}",
                    str(spec.path),
                    f"known: {KNOWN_SHAPES}; else describe it in dataset_info.json",
                )
            ]
        )
    weighs = all(is_weight(row["weight"]) for row in rows if row.get("weight") is not None)
    columns = replace(found["columns"], weight=_present(keys, "weight") if weighs else None)
    settled = replace(spec, **{**found, "columns": columns}, has_columns=True)
    named = {
        name: getattr(settled.columns, name) for name in Columns.__dataclass_fields__ if getattr(settled.columns, name)
    }
    pairs = ", ".join(f"{name}={column}" for name, column in named.items())
    return (
        settled,
        f"dataset {spec.name}: read as {settled.formatting}{' with ranking' if settled.ranking else ''} ({pairs})",
    )


_LAYOUT_KEYS = frozenset({"messages", "conversations", "conversation", "instruction", "prompt", "text"})


def _telling_keys(rows: list[dict[str, Any]]) -> set[str]:
    """All keys, but those that decide the layout only where half the rows have them: one stray row must not decide."""
    counts = Counter(key for row in rows for key in row)
    return {key for key, count in counts.items() if key not in _LAYOUT_KEYS or 2 * count >= len(rows)}


def _present(keys: set[str], *names: str) -> str | None:
    return next((name for name in names if name in keys), None)


def _judged(keys: set[str]) -> dict[str, Any]:
    """Columns of preference and feedback sets, whatever holds the prompt."""
    if {"chosen", "rejected"} <= keys:
        return {"chosen": "chosen", "rejected": "rejected"}
    return {"kto_tag": _present(keys, "kto_tag", "label")}


def _chat(rows: list[dict[str, Any]], keys: set[str]) -> dict[str, Any] | None:
    column = _present(keys, "messages", "conversations", "conversation")
    if column is None:
        return None
    judged = _judged(keys)
    columns = Columns(messages=column, system=_present(keys, "system"), tools=_present(keys, "tools"), **judged)
    first: list[Any] = next((row[column] for row in rows if isinstance(row.get(column), list) and row[column]), [{}])
    is_sharegpt = isinstance(first[0], dict) and "from" in first[0]
    tags = Tags() if is_sharegpt else OPENAI_TAGS
    return {
        "formatting": "sharegpt" if is_sharegpt else "openai",
        "columns": columns,
        "tags": tags,
        "ranking": "chosen" in judged,
    }


def _flat(keys: set[str]) -> dict[str, Any] | None:
    judged = _judged(keys)
    is_ranking = "chosen" in judged
    system = _present(keys, "system")
    if "instruction" in keys:
        response = _present(keys, "output", "response")  # prompts alone are enough where the model answers them
        history = _present(keys, "history")
        columns = Columns("instruction", _present(keys, "input"), response, history, system=system, **judged)
        return {"formatting": "alpaca", "columns": columns, "ranking": is_ranking}
    response = _present(keys, "completion", "response")
    if "prompt" in keys:
        columns = Columns("prompt", response=response, system=system, **judged)
        return {"formatting": "completion", "columns": columns, "ranking": is_ranking}
    if "text" in keys:
        return {"formatting": "text", "columns": Columns(prompt="text"), "ranking": False}
    return None
