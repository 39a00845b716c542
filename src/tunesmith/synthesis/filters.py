"""What an entry must be beside supported: of some length, in the right language, about the thing, no loop."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tunesmith.synthesis.replies import Entry
from tunesmith.synthesis.sentences import script_of

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_OF_TEXT = re.compile(
    r"(?:文中|上文|本文|原文|文本|该文|这段话|这段文字|上述内容|选段)"
    r"|\b(?:this|the|given|above) (?:given |following |above )?(?:text|passage|excerpt|article|paragraph)\b",
    re.IGNORECASE,
)
_PIECES = re.compile(r"[^。！？!?.\n]+")
_LOOP = 3
"""Times that a sentence of some length may not be said."""
Fault = tuple[str, str]
"""(reason, detail)."""


def fault_of(entry: Entry, config: RunConfig, script: str) -> Fault | None:
    """Why an entry cannot be used, if there is a reason on its face.

    Args:
        entry: what the generator wrote.
        config: lengths and language.
        script: of the chunk.
    """
    for question, answer in (*entry.history, (entry.question, entry.answer)):
        found = _length(question, answer, config) or _language(question, answer, config, script)
        if found:
            return found
        if mention := _OF_TEXT.search(question):
            return "the question speaks of the text", mention[0]
        if loop := _loop(answer):
            return "the answer repeats itself", loop
    return None


def _length(question: str, answer: str, config: RunConfig) -> Fault | None:
    for name, text in (("question", question), ("answer", answer)):
        least, most = getattr(config, f"min_{name}_chars"), getattr(config, f"max_{name}_chars")
        if len(text) < least:
            return f"the {name} is too short", f"{len(text)} characters, min_{name}_chars {least}"
        if len(text) > most:
            return f"the {name} is too long", f"{len(text)} characters, max_{name}_chars {most}"
    return None


def _language(question: str, answer: str, config: RunConfig, script: str) -> Fault | None:
    if config.language == "any":
        return None
    wanted = script if config.language == "auto" else config.language
    for name, text in (("question", question), ("answer", answer)):
        found = script_of(text)
        if found and wanted and found != wanted:
            return f"the {name} is in the wrong language", f"{found}, not {wanted}"
    return None


def _loop(answer: str) -> str:
    """A sentence that is said over and over, as small models do; empty where there is none."""
    said = Counter(" ".join(piece.lower().split()) for piece in _PIECES.findall(answer))
    often = [piece for piece, count in said.items() if count >= _LOOP and len(piece) > 5]
    return often[0][:80] if often else ""
