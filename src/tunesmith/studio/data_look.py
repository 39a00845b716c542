"""Rows and checks for the Data tab: what it asks of the recipes, tokenizers kept. No Gradio here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.dump import set_to_yaml
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.recipes.data import load_encoder
from tunesmith.recipes.preview import see
from tunesmith.studio.form import Said, tab_config
from tunesmith.studio.rows_shown import rows_page
from tunesmith.studio.workspace import Workspace

if TYPE_CHECKING:
    from tunesmith.data.tokenize import Encoder

_KEPT = 4
_WAIT = 0.5
_PROGRAM = [sys.executable, "-m", "tunesmith", "data", "check", "--json"]


class Looker:
    """Shows rows; the tokenizers of the last few models stay in memory.

    Args:
        workspace: guards paths.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._encoders: dict[str, Encoder] = {}
        self._lock = threading.Lock()

    def rows(self, config: RunConfig, first: int, count: int, language: str) -> str:
        """Some rows as HTML.

        Args:
            config: as `config` gives it.
            first: place of the first row, from 1.
            count: rows at most.
            language: of the page.

        Raises:
            TunesmithError: the model has no tokenizer here, the data cannot be used at all.
        """
        with self._lock:  # tokenizers are not made for several threads
            encoder = self._encoder(config)
            rows = see(config, encoder, first=max(1, first), count=count)
            return rows_page(rows, encoder.tokenizer, language)

    def config(self, keys: Mapping[str, Any], more: Said | None = None) -> RunConfig:
        """The configuration behind the fields and what was set under Advanced, for the command `data`."""
        return tab_config(self.workspace, "data", keys, more)

    def _encoder(self, config: RunConfig) -> Encoder:
        name = json.dumps({key: value for key, value in config.to_dict().items() if "dataset" not in key}, default=str)
        if name not in self._encoders:
            while len(self._encoders) >= _KEPT:
                del self._encoders[next(iter(self._encoders))]
            self._encoders[name] = load_encoder(config)
        return self._encoders[name]


class Checking:
    """`tunesmith data check --json` in a process of its own: large data takes minutes, and can be cancelled."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, config: RunConfig) -> Iterator[float | dict[str, Any]]:
        """Yields the seconds so far, and at last the report; nothing more when it was cancelled.

        Raises:
            TunesmithError: the check could not be made.
        """
        with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
            file = Path(folder) / "check.yaml"
            file.write_text(set_to_yaml(config), encoding="utf-8")
            began = time.monotonic()
            with (Path(folder) / "out").open("w+") as out, (Path(folder) / "said").open("w+") as said:
                process = subprocess.Popen(
                    [*_PROGRAM, str(file)], stdin=subprocess.DEVNULL, stdout=out, stderr=said, text=True
                )
                self._process = process
                try:
                    while process.poll() is None:
                        yield time.monotonic() - began
                        time.sleep(_WAIT)
                finally:
                    process.kill()
                    process.wait()
                if self._process is process:
                    yield _report(out, said)

    def cancel(self) -> None:
        """Ends the check under way."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()


def _report(out: Any, said: Any) -> dict[str, Any]:
    out.seek(0)
    said.seek(0)
    text = out.read()
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        last = said.read().strip().splitlines()[-5:]
        raise TunesmithError("the data could not be checked: " + "\n".join(last)) from None
    return found
