"""Short answers of a judging model: yes or no, A or B. What is neither is no verdict."""

from __future__ import annotations

import re

from tunesmith.synthesis.tolerant import without_thoughts

_YES = re.compile(r"^\W*(?:yes|是的?|有|支持|对)(?![\w\u4e00-\u9fff])|^\W*(?:yes|是)\W*$", re.IGNORECASE)
_NO = re.compile(r"^\W*(?:no|not|否|不是|没有|不支持|无)(?!\w)|^\W*(?:否|不)", re.IGNORECASE)
_CHOICE = re.compile(r"(?<![A-Za-z])([AB])(?![A-Za-z])")


def says_yes(text: str) -> bool | None:
    """True, False, or None where it is unclear."""
    text = without_thoughts(text).strip()
    if _NO.match(text):
        return False
    return True if _YES.match(text) else None


def chosen(text: str) -> str | None:
    """`A`, `B`, or None where neither or both are named."""
    found = set(_CHOICE.findall(without_thoughts(text)))
    return found.pop() if len(found) == 1 else None
