"""A piece of work as a tab shows it: state, how far it is, why it failed, its last lines. No Gradio here."""

from __future__ import annotations

import time
from pathlib import Path

from tunesmith.core.run_state import RunState, last_lines, read_state
from tunesmith.studio.markup import Html, note, page_part, tag
from tunesmith.studio.words import say

LINES = 14
_KINDS = {"failed": "bad", "finished": "good", "stopped": "warn", "cancelled": "warn"}
_MINUTE, _HOUR = 60, 3600


def job_page(folder: Path, language: str = "en") -> str:
    """Where the work in a run directory stands.

    Args:
        folder: the run directory.
        language: of the words.
    """
    state = read_state(folder)
    if state is None:
        return page_part(note(say("job.none", language), "quiet"))
    parts = [note(_headline(state, language), _KINDS.get(state.state, "quiet"))]
    if state.is_active and state.total_steps:
        share = min(100.0, 100 * state.step / state.total_steps)
        bar = tag("i", style=f"width:{share:.1f}%")
        parts.append(tag("div", bar, kind="ts-progress", role="progressbar", **{"aria-valuenow": f"{share:.0f}"}))
        parts.append(note(_pace(state, language), "quiet"))
    lines = last_lines(folder, LINES)
    if lines:
        parts.append(_log(lines))
    return page_part(*parts)


def _headline(state: RunState, language: str) -> str:
    said = say(f"job.{state.state}", language)
    work = say(f"job.{state.command.replace(' ', '_')}", language)
    return f"{work}: {said}" + (f"\n{state.reason}" if state.reason else "")


def _pace(state: RunState, language: str) -> str:
    counted = say("job.counted", language, done=f"{state.step:,}", total=f"{state.total_steps:,}")
    left = state.seconds_left(time.time())
    rest = say("job.left", language, time=clock(max(0.0, left))) if left is not None else ""
    return " · ".join(filter(None, (state.doing, counted, rest)))


def clock(seconds: float) -> str:
    """`M:SS`, or `H:MM:SS`."""
    whole = int(seconds)
    minutes = f"{whole % _HOUR // _MINUTE:02}" if whole >= _HOUR else f"{whole // _MINUTE}"
    return f"{whole // _HOUR}:{minutes}:{whole % _MINUTE:02}" if whole >= _HOUR else f"{minutes}:{whole % _MINUTE:02}"


def _log(lines: list[str]) -> Html:
    return tag("div", "\n".join(lines), kind="ts-log", tabindex="0")
