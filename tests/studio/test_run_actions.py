"""Which of Stop and Resume make sense for a run, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.run_state import RunState, State
from tunesmith.studio.run_actions import actions_of


@pytest.mark.parametrize(
    ("state", "buttons", "words"),
    [
        ("queued", "stop", "out"),
        ("starting", "stop kill", "writes a checkpoint"),
        ("running", "stop kill", "writes a checkpoint"),
        ("stopping", "kill", "asked to stop"),
        ("finished", "", "finished"),
        ("stopped", "resume", "checkpoint-12"),
        ("failed", "resume", "checkpoint-12"),
        ("cancelled", "resume", "checkpoint-12"),
    ],
)
def test_buttons_follow_the_state(tmp_path: Path, state: State, buttons: str, words: str) -> None:
    (tmp_path / "training_args.yaml").write_text("{}")
    for step in (4, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    found = actions_of(RunState(tmp_path, state))
    assert [name for name in ("stop", "kill", "resume") if getattr(found, name)] == buttons.split()
    assert words in found.why
    assert actions_of(RunState(tmp_path, state), "zh").why != found.why


def test_what_cannot_go_on_says_why(tmp_path: Path) -> None:
    assert "No run" in actions_of(None).why
    failed = RunState(tmp_path, "failed")
    assert not actions_of(failed).resume
    assert "configuration" in actions_of(failed).why
    (tmp_path / "training_args.yaml").write_text("{}")
    assert actions_of(failed).resume
    assert "starts over" in actions_of(failed).why
    (tmp_path / "eval_args.yaml").write_text("{}")
    assert "kept" in actions_of(RunState(tmp_path, "stopped", command="eval")).why
    assert "checkpoint" not in actions_of(RunState(tmp_path, "running", command="eval")).why
