"""Alarms: what raises them, what does not, and that each is raised once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.core.runs import Run
from tunesmith.training.alarms import Alarms, checks_of


def watch(
    folder: Path, entries: list[dict[str, float]], stage: str = "dpo", loss: str = "sigmoid", beta: float = 0.1
) -> list[dict[str, Any]]:
    """The alarms that these log entries raise."""
    run = Run(folder)
    alarms = Alarms(run, checks_of(stage, loss, beta))
    for step, entry in enumerate(entries, 1):
        state: Any = SimpleNamespace(is_world_process_zero=True, global_step=step)
        alarms.on_log(None, state, None, {"loss": 0.5, **entry})  # type: ignore[arg-type]
    return [event for event in run.events() if event["event"] == "alarm"]


def pair(ratio: float, reference: float = -100.0, beta: float = 0.1) -> dict[str, float]:
    return {"rewards/chosen": beta * ratio, "logps/chosen": reference + ratio}


def test_chosen_answers_that_collapse_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From 0 to -60 nats below a reference of -100; the usual fall of 10 nats is none."""
    assert not watch(tmp_path / "fine", [pair(-index) for index in range(11)])
    found = watch(tmp_path / "bad", [pair(-6.0 * index) for index in range(30)])
    assert [event["name"] for event in found] == ["chosen log-prob collapse"]
    assert "alarm: chosen log-prob collapse at step" in caplog.text
    assert found[0]["step"] < 15


def test_means_over_tokens_are_held_against_the_first(tmp_path: Path) -> None:
    for loss in ("simpo", "orpo", "ipo"):
        fine = [{"logps/chosen": -1.5 - 0.01 * index} for index in range(20)]
        assert not watch(tmp_path / f"fine-{loss}", fine, loss=loss)
        bad = [{"logps/chosen": -1.5 - 0.2 * index} for index in range(20)]
        assert watch(tmp_path / f"bad-{loss}", bad, loss=loss)[0]["name"] == "chosen log-prob collapse"


def test_kl_blows_up(tmp_path: Path) -> None:
    rising = [{"kl": 10.0 * index} for index in range(30)]
    assert watch(tmp_path / "kto", rising, stage="kto")[0]["name"] == "KL blow-up"
    assert not watch(tmp_path / "low", [{"kl": 5.0}] * 30, stage="kto")
    assert watch(tmp_path / "asft", [{"kl": 4.0}] * 5, stage="sft")[0]["name"] == "KL blow-up"


def test_length_drift_needs_more_than_noise(tmp_path: Path) -> None:
    noise = [{"rewards/length_bias": 1.0 if index % 2 else -1.0} for index in range(40)]
    assert not watch(tmp_path / "noise", noise)
    assert not watch(tmp_path / "early", [{"rewards/length_bias": 1.0}] * 9)
    (found,) = watch(tmp_path / "drift", [{"rewards/length_bias": -0.9}] * 12)
    assert found["name"] == "length drift"
    assert "the shorter one" in found["reason"]


def test_stages_without_answers_have_no_alarms() -> None:
    assert not checks_of("pt", "sigmoid", 0.1)
    assert not checks_of("rm", "sigmoid", 0.1)
