"""`tunesmith webui` as a process of its own, as users start it: for tests that look at it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 400
_ADDRESS = re.compile(r"the page is at (http://\S+);")


@dataclass
class Server:
    """A page server.

    Attributes:
        process: it.
        url: where it listens.
        log: what it prints.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def kill(self) -> None:
        """As the kernel does it when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def studio(root: Path, *words: str, port: int = 0) -> Iterator[Server]:
    """Serves a workspace; runs that it started go on when it ends."""
    log = root.with_name(f"{root.name}-page.log")
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    environment = {**quiet, "TUNESMITH_WORKSPACE": str(root), "GRADIO_SERVER_PORT": str(port)}
    command = [sys.executable, "-m", "tunesmith", "webui", *words]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, cwd=root)
    try:
        yield Server(process, _address(process, log), log)
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not (found := _ADDRESS.search(log.read_text(encoding="utf-8", errors="replace"))):
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        assert time.monotonic() < deadline, "the page server did not start"
        time.sleep(0.1)
    return found[1]
