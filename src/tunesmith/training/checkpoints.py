"""Checkpoints that are whole or absent: staged, synced, renamed, and checked before a resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import sync_path, sync_tree, write_json

logger = get_logger(__name__)

MANIFEST = "manifest.json"
STAGING = ".incomplete"
_NAME = re.compile(r"^checkpoint-(\d+)$")
_HASHED_UP_TO = 256 * 2**20
"""Larger files are checked by size alone: hashing a 100 GB checkpoint would cost more than it saves."""


def _digest(path: Path) -> str | None:
    if path.stat().st_size > _HASHED_UP_TO:
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def step_of(folder: Path) -> int | None:
    """N of a folder named checkpoint-N, else None."""
    match = _NAME.match(folder.name)
    return int(match.group(1)) if match else None


def list_checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoint-N folders, oldest first."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if path.is_dir() and step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def publish(staged: Path, final: Path, facts: dict[str, Any]) -> None:
    """Turns a staged folder into a checkpoint: manifest, sync to disk, one rename.

    Args:
        staged: the folder that holds all files.
        final: checkpoint-N beside it; an old one of that name is replaced.
        facts: what a resume must keep to be exact, stored in the manifest.
    """
    files = {
        str(path.relative_to(staged)): {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(staged.rglob("*"))
        if path.is_file()
    }
    write_json(staged / MANIFEST, {**facts, "files": files})
    sync_tree(staged)
    if final.exists():
        shutil.rmtree(final)
    staged.replace(final)
    with contextlib.suppress(OSError):  # another process may stage beside it
        staged.parent.rmdir()
    sync_path(final.parent)


def manifest_of(checkpoint: Path) -> dict[str, Any]:
    """The manifest's content; empty for a checkpoint that another program wrote."""
    try:
        value = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None when it is whole."""
    if not (checkpoint / "trainer_state.json").is_file():
        return "trainer_state.json is missing"
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        return "trainer_state.json is cut"
    for name, facts in manifest_of(checkpoint).get("files", {}).items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != facts["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
        if facts.get("sha256") and _digest(path) != facts["sha256"]:
            return f"{name} is damaged (its checksum differs)"
    return None


def newest_whole(output_dir: Path) -> Path | None:
    """The newest checkpoint that is whole; torn ones are passed over with a warning."""
    for checkpoint in reversed(list_checkpoints(output_dir)):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        logger.warning("%s is passed over: %s", checkpoint, fault)
    return None


def resumable(path: Path) -> Path:
    """Checks a checkpoint that the user named.

    Raises:
        TrainingError: it is missing, torn, or was saved with `save_only_model`.
    """
    if not path.is_dir():
        raise TrainingError(f"resume_from_checkpoint: {path} is no folder")
    fault = fault_of(path)
    if fault:
        raise TrainingError(f"resume_from_checkpoint: {path} cannot be resumed: {fault}")
    if not (path / "optimizer.pt").is_file():
        raise TrainingError(
            f"resume_from_checkpoint: {path} holds weights only (save_only_model: true), so nothing can be resumed "
            "exactly; to train on from these weights give the folder as adapter_name_or_path or model_name_or_path"
        )
    return path


def rotate(output_dir: Path, keep: int | None, protected: str | None) -> None:
    """Deletes the oldest checkpoints beyond `keep`; the best and the newest always stay."""
    if not keep or keep < 1:
        return
    checkpoints = list_checkpoints(output_dir)
    best = Path(protected).name if protected else None
    spare = [path for path in checkpoints[:-1] if path.name != best]
    surplus = len(checkpoints) - max(keep, 2 if best and best != checkpoints[-1].name else 1)
    for path in spare[: max(surplus, 0)]:
        shutil.rmtree(path)


@contextlib.contextmanager
def fitting(checkpoint: Path) -> Iterator[None]:
    """Loads something of a checkpoint in its block.

    Raises:
        TrainingError: it does not fit the model or the optimizer of this run.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        first = (str(error).splitlines() or [""])[0].rstrip(":")
        raise TrainingError(
            f"{checkpoint} is of a run with other weights than this one ({type(error).__name__}: {first}); go back to "
            "its settings (model, finetuning_type, lora_rank, lora_target, optim, ...), or begin anew: another "
            "output_dir, or overwrite_output_dir: true"
        ) from error


def check_space(output_dir: Path, bytes_each: int, count: int) -> None:
    """Refuses to start a run whose checkpoints do not fit on the disk.

    Args:
        output_dir: where they go.
        bytes_each: size of one checkpoint.
        count: how many will lie there at once, the staged one included.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output_dir).free
    needed = bytes_each * count
    if free < needed:
        raise TrainingError(
            f"output_dir {output_dir}: {count} checkpoints of {bytes_each / 2**20:.0f} MiB need "
            f"{needed / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free; set save_total_limit: 1 or "
            "save_only_model: true, or choose another disk"
        )
