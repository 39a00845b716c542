"""Options of commands that are not keys: taken out of the words before the rest is read as a configuration."""

from __future__ import annotations

from tunesmith.core.errors import TunesmithError


def take_switch(words: list[str], name: str) -> bool:
    """Whether a switch is among the words; it is taken out."""
    found = name in words
    words[:] = [word for word in words if word != name]
    return found


def take_value(words: list[str], name: str) -> str | None:
    """What follows an option, or its `=` (the dashes may be missing then); both are taken out."""
    for place, word in enumerate(words):
        if word == name:
            if place + 1 == len(words):
                raise TunesmithError(f"{name} wants a value behind it")
            value = words[place + 1]
            del words[place : place + 2]
            return value
        if word.startswith((f"{name}=", f"{name.removeprefix('--')}=")):
            del words[place]
            return word.partition("=")[2]
    return None
