"""All keys as one Markdown page: docs/keys.md. A test holds the file against this."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config import legacy
from tunesmith.config.explain import range_words, shown, type_words
from tunesmith.config.schema import COMMANDS, GROUPS, KEYS, Key
from tunesmith.config.schema.key import keys_of

_HEAD = """\
# All keys

Made from the schema; do not edit. `tunesmith explain KEY` shows the same for one key, `tunesmith schema FILE` writes a
JSON Schema for editors. Every command takes every key and uses its own: where a group or a key is not used by all of
them, the commands are named. Lists are written as YAML lists or as text with commas.
"""
_MAKE = "python -c \"from tunesmith.config.reference import markdown; print(markdown(), end='')\" > docs/keys.md"


def markdown() -> str:
    """The page."""
    return "\n".join([_HEAD, f"<!-- {_MAKE} -->", *_built(), *_unbuilt(), *_old_names()]) + "\n"


def _built() -> Iterator[str]:
    for group in GROUPS:
        known = [key for key in keys_of(group).values() if not key.not_yet]
        if not known:
            continue
        yield f"\n## {group.TITLE}\n"
        if set(group.COMMANDS) != set(COMMANDS):
            yield f"Used by {_words(group.COMMANDS)}.\n"
        yield "| key | value | default | what it does |"
        yield "| --- | --- | --- | --- |"
        yield from (_row(key, group.COMMANDS) for key in known)


def _row(key: Key, usual: tuple[str, ...]) -> str:
    parts = [key.help, key.note]
    if set(key.commands) != set(usual):
        parts.append(f"Used by {_words(key.commands)}.")
    for reason in dict.fromkeys(key.not_yet_values.values()):
        values = [value for value, why in key.not_yet_values.items() if why == reason]
        parts.append(f"Not built yet: {', '.join(values)} ({reason}).")
    if key.aliases:
        parts.append(f"Also: {', '.join(f'`{name}`' for name in key.aliases)}.")
    cells = [f"`{key.name}`", _values(key), _code(shown(key.default)), " ".join(part for part in parts if part)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _values(key: Key) -> str:
    if key.choices:
        kind = "list of: " if key.is_list else ""
        return kind + ", ".join(key.choices) + (", null" if key.nullable else "")
    bounds = range_words(key)
    return type_words(key).replace("','", "commas") + (f", {bounds}" if bounds else "")


def _code(text: str) -> str:
    return text if text in ("null", "none") else f"`{text}`"


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _unbuilt() -> Iterator[str]:
    yield "\n## Known, not built yet\n"
    yield "Set to anything but their default these keys are refused with a message, never accepted and ignored.\n"
    reasons: dict[str, list[str]] = {}
    for key in KEYS.values():
        if key.not_yet:
            reasons.setdefault(key.not_yet, []).append(key.name)
    for reason, names in reasons.items():
        yield f"- {reason}: {', '.join(f'`{name}`' for name in names)}"


def _old_names() -> Iterator[str]:
    yield "\n## Old names\n"
    yield "Names of transformers 4 and of older LLaMA-Factory are taken with a warning.\n"
    yield "| old name | today |"
    yield "| --- | --- |"
    for old in sorted(legacy.NAMES):
        today = next((key for key in KEYS if old in legacy.old_names_of(key)), None)
        why = legacy.DROPPED.get(old, "weights are always safetensors")
        yield f"| `{old}` | {f'`{today}`' if today else f'ignored: {why}'} |"
