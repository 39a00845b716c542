"""`tunesmith schema [FILE]`: the JSON Schema of the configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith.core.errors import TunesmithError

_USAGE = """\
usage: tunesmith schema [FILE]

Writes a JSON Schema of the configuration to FILE, or prints it.
An editor with a YAML language server uses it where the file begins with:
  # yaml-language-server: $schema=FILE
"""


def main(words: Sequence[str]) -> None:
    """Writes or prints the schema."""
    if any(word in ("-h", "--help") for word in words):
        print(_USAGE, end="")
        return
    if len(words) > 1 or (words and words[0].startswith("-")):
        raise TunesmithError(f"schema takes one file name at most, not: {' '.join(words)}")
    from tunesmith.config.json_schema import json_schema
    from tunesmith.core.runs import write_atomic

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if not words:
        print(text, end="")
        return
    try:
        write_atomic(Path(words[0]), text)
    except OSError as error:
        raise TunesmithError(f"cannot write {words[0]}: {error.strerror}") from None
    print(f"wrote {words[0]}")
