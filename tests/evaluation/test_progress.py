"""Long work shows how far it is: a bar in a terminal, lines elsewhere, a note in the run's folder."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core.runs import Run
from tunesmith.evaluation import progress
from tunesmith.evaluation.progress import ProgressBar

CODE = """
from tunesmith.evaluation.progress import ProgressBar
with ProgressBar("questions", 3, live={live}) as bar:
    for done in (1, 2, 3):
        bar.show(done, "accuracy 0.667")
"""


def in_a_terminal(code: str) -> str:
    """What a program writes to a terminal 100 columns wide."""
    ours, its = pty.openpty()
    env = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    done = subprocess.Popen([sys.executable, "-c", code], stdin=its, stdout=its, stderr=its, env=env)
    os.close(its)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the terminal's other end was closed
        pass
    finally:
        os.close(ours)
    assert done.wait() == 0, shown.decode()
    return shown.decode()


def test_a_terminal_shows_a_bar_with_count_and_score() -> None:
    shown = in_a_terminal(CODE.format(live=True))
    assert "questions" in shown
    assert "3/3" in shown
    assert "accuracy 0.667" in shown


def test_beside_another_bar_there_is_none() -> None:
    assert in_a_terminal(CODE.format(live=False)) == ""


@pytest.mark.parametrize(("seconds", "expected"), [(-1.0, ["questions: 1 of 3, accuracy 0.5"]), (3600.0, [])])
def test_elsewhere_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float, expected: list[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", seconds)
    with caplog.at_level(logging.INFO, logger="tunesmith"), ProgressBar("questions", 3) as bar:
        bar.show(1, "accuracy 0.5")
    assert [record.getMessage() for record in caplog.records] == expected


def test_the_run_knows(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with ProgressBar("questions", 3, run=run) as bar:
        bar.show(2)
    assert '"done": 2' in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
