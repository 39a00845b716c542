"""Settings of `data make` and its kin out of the environment and a `.env` file, under the names that tutorials use.

They stand below the configuration file and the command line. Nothing is put into the environment of this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tunesmith.config.entries import Entry, Word
from tunesmith.config.schema.key import MAKE, MAKING
from tunesmith.core import env

FILE = Path(".env")
OPENAI = "https://api.openai.com/v1"
DEEPSEEK, DEEPSEEK_MODEL = "https://api.deepseek.com/v1", "deepseek-chat"
_TEXT = "INPUT_FILE_PATH"
_TEXTS = {"data make": (_TEXT,), "data dialogue": ("TEXTFILE", _TEXT), "data split": (_TEXT,)}
_FILE_ONLY = {"entries_per_chunk": "ENTRIES_PER_FILE", "roles": "ROLES"}


_VARIABLE = "environment variable "


def is_from_environment(place: str) -> bool:
    """Whether a place that an entry names is the environment or `.env`: whoever runs there finds the value himself."""
    return place.startswith((_VARIABLE, f"{FILE}:"))


class _Variables:
    """The process's environment over the file `.env` of the current folder."""

    def __init__(self) -> None:
        self._lines = env.read_file(FILE) if FILE.is_file() else {}

    def find(self, *names: str, file_only: bool = False) -> tuple[str, str] | None:
        """(value, place) of the first of these names that is set; an empty value counts as absent."""
        for name in names:
            value = None if file_only else env.get(name)
            if value:
                return value, f"{_VARIABLE}{name}"
            if name in self._lines and self._lines[name][0]:
                value, line = self._lines[name]
                return value, f"{FILE}:{line}"
        return None


def entries(command: str, given: Sequence[Entry]) -> list[Entry]:
    """What the environment says for a command; nothing for commands that make no data.

    Args:
        command: as in `RunConfig`.
        given: what the file and the command line say.
    """
    if command not in MAKING:
        return []
    variables = _Variables()
    said = {entry.key: str(entry.value) for entry in given}
    found = list(_texts(command, variables, said))
    if command in MAKE:
        found += _endpoint(variables, said)
    return found


def _texts(command: str, variables: _Variables, said: dict[str, str]) -> Iterator[Entry]:
    text = variables.find(*_TEXTS[command], file_only=True)
    if text and "chunks" not in said:
        yield Entry("input_file_path", Word(text[0]), text[1])
    for key, name in _FILE_ONLY.items():
        if value := variables.find(name, file_only=True):
            yield Entry(key, Word(value[0]), value[1])


def _endpoint(variables: _Variables, said: dict[str, str]) -> Iterator[Entry]:
    """Address, key and model; a key that belongs to a known service is sent to that service only."""
    address = variables.find("BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_BASE")
    key = variables.find("API_KEY")
    openai, deepseek = variables.find("OPENAI_API_KEY"), variables.find("DEEPSEEK_API_KEY")
    host = urlsplit(said.get("base_url") or (address[0] if address else "")).hostname or ""
    model = variables.find("MODEL")
    if openai and not key and (not host or host.endswith("openai.com") or variables.find("OPENAI_BASE_URL")):
        key, address = openai, address or (OPENAI, openai[1])
    elif deepseek and not key and (not host or host.endswith("deepseek.com")):
        key, address = deepseek, address or (DEEPSEEK, deepseek[1])
        model = model or (DEEPSEEK_MODEL, deepseek[1])
    for name, found in (("base_url", address), ("api_key", key), ("generator_model", model)):
        if found:
            yield Entry(name, found[0], found[1])
