"""Checkpoints are whole or absent; a torn newest one is passed over; the best one is never deleted."""

import json
from pathlib import Path

import pytest

from tunesmith.core.errors import TrainingError
from tunesmith.training import checkpoints
from tunesmith.training.checkpoints import check_space, fault_of, list_checkpoints, newest_whole, publish, rotate


def _make(folder: Path, step: int) -> Path:
    staged = folder / ".incomplete" / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    (staged / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (staged / "adapter_model.safetensors").write_bytes(b"w" * 100)
    (staged / "optimizer.pt").write_bytes(b"o" * 100)
    final = folder / f"checkpoint-{step}"
    publish(staged, final, {"step": step})
    return final


def test_a_published_checkpoint_is_whole_and_its_stage_is_gone(tmp_path: Path) -> None:
    final = _make(tmp_path, 10)
    assert fault_of(final) is None
    assert not (tmp_path / ".incomplete" / "checkpoint-10").exists()


def test_numbers_not_names_give_the_order(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        _make(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "state"])
def test_a_torn_newest_checkpoint_is_passed_over_with_a_reason(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, torn = _make(tmp_path, 10), _make(tmp_path, 20)
    victim = torn / "adapter_model.safetensors"
    if damage == "cut":
        victim.write_bytes(b"w" * 60)
    elif damage == "flip":
        victim.write_bytes(b"w" * 99 + b"x")
    elif damage == "missing":
        victim.unlink()
    else:
        (torn / "trainer_state.json").write_text("{")
    assert fault_of(torn)
    assert newest_whole(tmp_path) == good


def test_rotation_keeps_the_best_and_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _make(tmp_path, step)
    rotate(tmp_path, keep=2, protected=str(tmp_path / "checkpoint-1"))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-4"]
    rotate(tmp_path, keep=1, protected=None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-4"]
    rotate(tmp_path, keep=None, protected=None)
    assert len(list_checkpoints(tmp_path)) == 1


def test_a_disk_too_small_is_said_before_the_first_step(tmp_path: Path) -> None:
    check_space(tmp_path, 1, 1)
    with pytest.raises(TrainingError, match=r"GiB are free; set save_total_limit"):
        check_space(tmp_path, 2**50, 3)


def test_weights_only_checkpoints_cannot_be_resumed_exactly(tmp_path: Path) -> None:
    final = _make(tmp_path, 5)
    (final / "optimizer.pt").unlink()
    (final / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="weights only"):
        checkpoints.resumable(final)
