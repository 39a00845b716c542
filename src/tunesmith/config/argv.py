"""The words of a command line to a configuration file and entries. Knows the kinds of keys, not their values."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.config.coerce import BOOLEAN_WORDS
from tunesmith.config.entries import Entry, Word
from tunesmith.config.legacy import NAMES as LEGACY_NAMES
from tunesmith.config.read import SUFFIXES
from tunesmith.config.schema import ALIASES, KEYS
from tunesmith.config.schema.key import Key
from tunesmith.config.suggest import did_you_mean, folded, near_keys
from tunesmith.core.errors import Problem

PLACE = "command line"
_DASHES = "‐‑‒–—―−－"  # what word processors and web pages make of '-'
_LONGEST_SHOWN = 40
_SWITCHES = frozenset({"save_safetensors", "group_by_length", "adafactor", "no_cuda", "include_tokens_per_second"})


class CommandLine:
    """What the words after the command say.

    Attributes:
        file: the configuration file, None where there is none.
        entries: the settings, in order.
        problems: words that cannot be understood.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.file: str | None = None
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self._words = list(words)
        self._at = 0
        while self._at < len(self._words):
            if not self._one():
                break

    def _one(self) -> bool:
        """Takes the next word with what belongs to it; False ends the reading."""
        word = self._words[self._at]
        if _is_leftover(word):
            self._leftover(word)
            return False
        self._at += 1
        if word.startswith("--"):
            self._flag(word)
        elif word[0] in _DASHES or (word[0] == "-" and not _is_number(word)):
            self._wrong_dash(word)
        elif "=" in word and _looks_like_key(word.partition("=")[0]):
            name, _, value = word.partition("=")
            self.entries.append(Entry(name, Word(value), _override_place(name, value)))
        elif self.file is None and _is_file(word):
            self.file = word
        else:
            self._stray(word)
        return True

    def _flag(self, word: str) -> None:
        body, equals, value = word[2:].partition("=")
        name = body.strip().replace("-", "_")
        flag = f"--{body}"
        known = KEYS.get(ALIASES.get(name, name))
        if equals:
            self.entries.append(Entry(name, _flag_value(value), flag))
        elif known is None and name not in LEGACY_NAMES:
            self._unknown_flag(name, flag)
        elif (known and known.is_bool) or name in _SWITCHES:
            self.entries.append(Entry(name, self._switch(), flag))
        elif known and known.is_list:
            self._list(name, flag)
        else:
            self._value(name, flag, known)

    def _switch(self) -> Word:
        """The value of a boolean flag: the next word unless that is something else; bare means yes."""
        following = self._peek()
        if following is None or _is_file(following) or "=" in following:
            return Word("true")
        if following.lower() not in BOOLEAN_WORDS and _is_leftover(following):
            return Word("true")
        self._at += 1
        return Word(following)

    def _list(self, name: str, flag: str) -> None:
        items: list[str] = []
        while (following := self._peek()) is not None and not _is_leftover(following):
            if items and (following.lower().endswith((".yaml", ".yml")) or _is_override(following)):
                break
            items.append(following)
            self._at += 1
        if not items:
            self.problems.append(Problem(f"{flag} needs a value", PLACE))
            return
        self.entries.append(Entry(name, Word(items[0]) if len(items) == 1 else [Word(item) for item in items], flag))

    def _value(self, name: str, flag: str, known: Key | None) -> None:
        following = self._peek()
        if following is not None:
            self._at += 1
            self.entries.append(Entry(name, _flag_value(following), flag))
        elif known is None or "bool" in known.kinds:
            self.entries.append(Entry(name, Word("true"), flag))
        else:
            self.problems.append(Problem(f"{flag} needs a value", PLACE))

    def _unknown_flag(self, name: str, flag: str) -> None:
        positive = name.removeprefix("no_")
        if positive != name and positive in KEYS and KEYS[positive].is_bool:
            self.entries.append(Entry(positive, Word("false"), flag))
            return
        following = self._peek()
        joined = f"{name}_{folded(following)}" if following else ""
        if joined in KEYS:
            self._at += 1
            self.problems.append(Problem(f"unknown key {flag} {following}", PLACE, f"write --{joined}, in one word"))
            self._skip_values()
            return
        value = Word("true")
        if following is not None and not _is_file(following) and not _is_override(following):
            value = Word(following)
            self._at += 1
        self.entries.append(Entry(name, value, flag))  # judged with the unknown keys of the file

    def _skip_values(self) -> None:
        while (following := self._peek()) is not None and not _is_leftover(following):
            self._at += 1

    def _peek(self) -> str | None:
        """The next word if it can be a value."""
        if self._at >= len(self._words):
            return None
        word = self._words[self._at]
        is_flag = word.startswith("--") or (word[:1] in _DASHES if word else False)
        is_short = len(word) > 1 and word[0] == "-" and not _is_number(word)
        return None if is_flag or is_short else word

    def _leftover(self, word: str) -> None:
        rest = " ".join(self._words[self._at :])
        more = f"; not read: {rest[:80].strip()}" if rest.strip(" \\") else ""
        what = f"a comment or a lone backslash stands among the words ({word!r}){more}"
        fix = "a backslash must be the very last character of its line, and no comment may follow it"
        self.problems.append(Problem(what, PLACE, fix))

    def _wrong_dash(self, word: str) -> None:
        name = folded(word.lstrip(_DASHES + "-").partition("=")[0])
        if word[0] == "-" and len(word) > 1 and word[1] not in _DASHES:
            what = f"{word} begins with one dash"
        else:
            what = f"{word} begins with a character that only looks like two dashes"
        near = near_keys(name)
        self.problems.append(Problem(what, PLACE, f"write --{near[0]}" if near else "keys begin with --"))
        self._skip_values()

    def _stray(self, word: str) -> None:
        if _is_file(word):
            fix = f"one configuration file is enough; {self.file} is read already"
        elif word == "=":
            fix = "write key=value without blanks"
        elif "." in word or "/" in word:
            fix = f"a configuration file ends in {', '.join(SUFFIXES)}"
        elif near := near_keys(word, most_edits=2):
            fix = did_you_mean(tuple(f"--{name}" for name in near))
        else:
            fix = "write CONFIG.yaml, then key=value or --key value; put quotes around a value with blanks"
        self.problems.append(Problem(f"the word {word!r} belongs to no key", PLACE, fix))


def _flag_value(text: str) -> str:
    """Nothing between quotes is an empty text; anything else is a word whose type the key knows."""
    return Word(text) if text else text


def _override_place(name: str, value: str) -> str:
    """`key=value` as a place, without long values and secrets."""
    known = KEYS.get(ALIASES.get(name, name))
    is_plain = known is not None and not known.secret
    return f"{name}={value}" if is_plain and len(value) <= _LONGEST_SHOWN else f"{name}=..."


def _is_leftover(word: str) -> bool:
    return not word.strip(" \t\r\n\\") or word.startswith("#")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_file(word: str) -> bool:
    return word.lower().endswith(SUFFIXES)


def _looks_like_key(name: str) -> bool:
    return bool(name) and name.replace("_", "").replace("-", "").replace(".", "").isalnum()


def _is_override(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.replace("-", "_") in KEYS
