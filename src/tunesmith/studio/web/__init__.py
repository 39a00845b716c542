"""What runs and shows in the browser: scripts, styles and the Chinese help of the keys."""

from __future__ import annotations

from importlib import resources


def text_of(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
