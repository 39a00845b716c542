"""`${oc.env:NAME}`, `${oc.env:NAME,default}` and `${other_key}` in values. `$${` stands for a plain `${`."""

from __future__ import annotations

import re
from typing import Any

from tunesmith.config.coerce import MismatchError
from tunesmith.config.entries import Word, is_null
from tunesmith.config.schema import KEYS
from tunesmith.config.suggest import did_you_mean, near_keys
from tunesmith.core import env

_INNERMOST = re.compile(r"(?<!\$)\$\{\s*([A-Za-z_][^${}]*)\}")
_ESCAPED = "$${"
_MOST_REFERENCES = 100  # a variable may hold a reference to itself


class Resolver:
    """Resolves the values of one configuration.

    Args:
        raw: key -> raw value of all that was set.
        reads_environment: whether `${oc.env:NAME}` is answered; where strangers write values it is not.
    """

    def __init__(self, raw: dict[str, Any], *, reads_environment: bool = True) -> None:
        self._raw = raw
        self._reads_environment = reads_environment

    def resolve(self, value: Any, asking: tuple[str, ...]) -> Any:
        """A raw value with every `${...}` replaced.

        Args:
            value: the raw value.
            asking: the keys that are being resolved, outermost first.

        Raises:
            MismatchError: an unset variable, or one where none is read; an unknown key, an unknown resolver, a secret
                where it would be shown, or keys that refer to each other.
        """
        if isinstance(value, list):
            return [self.resolve(item, asking) for item in value]
        if isinstance(value, dict):
            return {name: self.resolve(item, asking) for name, item in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value
        return self._text(value, asking)

    def _text(self, text: str, asking: tuple[str, ...]) -> Any:
        was_word = isinstance(text, Word)
        for _ in range(_MOST_REFERENCES):
            match = _INNERMOST.search(text)
            if not match:
                break
            found = self._reference(match[1], asking)
            if match.span() == (0, len(text)):
                return found
            text = f"{text[: match.start()]}{'' if found is None else found}{text[match.end() :]}"
        text = text.replace(_ESCAPED, "${")
        return Word(text) if was_word else text

    def _reference(self, inner: str, asking: tuple[str, ...]) -> Any:
        resolver, colon, rest = inner.partition(":")
        if not colon:
            return self._key(inner.strip(), asking)
        if resolver.strip() not in ("oc.env", "env"):
            raise MismatchError(f"${{{inner}}}: nothing is called {resolver}", "known are ${oc.env:NAME} and ${KEY}")
        if not self._reads_environment:
            raise MismatchError(f"${{{inner}}}: no environment variables are read here", "write the value itself")
        name, comma, default = rest.partition(",")
        value = env.expand(name.strip())
        if value is not None:
            return Word(value)
        if not comma:
            raise MismatchError(
                f"the environment variable {name.strip()} is not set",
                f"set it, or give a default: ${{oc.env:{name.strip()},default}}",
            )
        return _unquoted(default.strip())

    def _key(self, name: str, asking: tuple[str, ...]) -> Any:
        if name in asking:
            raise MismatchError(f"these keys refer to each other: {' -> '.join((*asking, name))}")
        if name in KEYS and KEYS[name].secret and not KEYS[asking[0]].secret:
            raise MismatchError(f"{asking[0]} would show what {name} holds, which is a secret", "write a plain value")
        if name in self._raw and not is_null(self._raw[name]):
            return self.resolve(self._raw[name], (*asking, name))
        if name not in KEYS:
            fix = did_you_mean(near_keys(name)) or "write $${ for a plain ${"
            raise MismatchError(f"${{{name}}} refers to a key that does not exist", fix)
        default = KEYS[name].default
        return list(default) if isinstance(default, tuple) else default


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return Word(text)
