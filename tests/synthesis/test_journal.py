"""The memory of answers, and the bar."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.types import Message
from tunesmith.synthesis.calls import Call, CallFailedError, Reply
from tunesmith.synthesis.cost import Meter
from tunesmith.synthesis.counting import Estimate
from tunesmith.synthesis.journal import Journal
from tunesmith.synthesis.progress import progress

PATH = Path("calls.jsonl")


class Counting:
    """Answers with the number of the call."""

    name = "counting"

    def __init__(self, failing: bool = False) -> None:
        self.calls: list[Call] = []
        self.failing = failing

    async def ask(self, call: Call) -> Reply:
        self.calls.append(call)
        number = len(self.calls)
        await asyncio.sleep(0.01)
        if self.failing:
            raise CallFailedError("HTTP 500", "no")
        return Reply(f"{number}: 你好\u2028\n", 10, 2)

    async def close(self) -> None:
        return


def call(text: str, **changes: Any) -> Call:
    return Call((Message("user", text),), "m", 0.5, 1.0, 9, **changes)


def ask(asker: Counting, *calls: Call) -> tuple[list[Any], Journal]:
    journal = Journal(PATH, asker, Meter(Estimate()))

    async def work() -> list[Any]:
        return list(await asyncio.gather(*map(journal.ask, calls), return_exceptions=True))

    return asyncio.run(work()), journal


def test_an_answer_is_asked_for_once_also_by_two_at_a_time() -> None:
    asker = Counting()
    (first, twin, other), _ = ask(asker, call("a"), call("a"), call("b"))
    assert first == twin != other
    assert len(asker.calls) == 2
    (again,), journal = ask(asker, call("a"))
    assert again == first
    assert (len(asker.calls), journal.reused, journal.meter.total.calls, journal.meter.new.calls) == (2, 1, 2, 0)


def test_every_part_of_a_call_makes_another_call() -> None:
    different = [
        call("a"), call("b"), call("a", attempt=2), call("a", opening="Q"), call("a", purpose="judge"),
        call("a", extra={"x": 1}),
        Call((Message("user", "a"),), "n", 0.5, 1.0, 9), Call((Message("system", "a"),), "m", 0.5, 1.0, 9),
        Call((Message("user", "a"),), "m", 0.6, 1.0, 9), Call((Message("user", "a"),), "m", 0.5, 1.0, 10),
    ]  # fmt: skip
    assert len({one.key for one in different}) == len(different)
    assert call("a").key == call("a").key


def test_failures_are_no_answers_and_both_who_wait_hear_of_them() -> None:
    (first, twin), _ = ask(Counting(failing=True), call("a"), call("a"))
    assert isinstance(first, CallFailedError)
    assert isinstance(twin, CallFailedError)
    (healed,), journal = ask(Counting(), call("a"))
    assert healed.text.startswith("1:")
    assert journal.interrupted == 0, "it had failed, it was not under way"


def test_torn_and_foreign_lines_do_no_harm() -> None:
    asker = Counting()
    ask(asker, call("a"), call("b"))
    lines = PATH.read_text(encoding="utf-8").split("\n")
    whole = next(line for line in lines if '"answer"' in line)
    torn = [
        json.dumps({"event": "begun", "key": "x"}),
        whole,
        "[]",
        '{"event": "answer", "key": "y"}',
        "\ufffd",
        whole[:40],
    ]
    PATH.write_text("\n".join(torn), encoding="utf-8")
    _, journal = ask(asker, call("c"))
    assert journal.meter.total.calls == 2
    assert journal.interrupted == 1
    assert PATH.read_text(encoding="utf-8").split("\n")[5] == whole[:40], "a torn line is closed, not joined"


def test_the_bar_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("entries", 12) as advance:
        advance(5, 0, "")
        advance(3, 4, "1.25 spent")
    shown = capsys.readouterr().err
    assert "entries" in shown
    assert "12/12" in shown
    assert "kept 8, failed 4, 1.25 spent" in " ".join(shown.split())


def test_without_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tunesmith.synthesis.progress._PATIENCE", 0.0)
    caplog.set_level("INFO", "tunesmith")
    with progress("entries", 4) as advance:
        advance(1, 1, "")
    assert "entries: 2 of 4, kept 1, failed 1" in caplog.text
