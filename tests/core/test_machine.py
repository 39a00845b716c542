"""What the system refuses is recognised in whatever error it comes up, and nothing else is."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tunesmith.core.machine import machine_error, why_not_writable


class RustError(Exception):
    """As safetensors raises it."""


def raised_from(error: BaseException) -> BaseException:
    try:
        try:
            raise error
        except BaseException as cause:
            raise RuntimeError("the checkpoint could not be saved") from cause
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/model"), "out/model: no space is left on the disk"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "out: the disk can only be read"),
        (PermissionError(errno.EACCES, "Permission denied", "data.json"), "data.json: permission denied"),
        (RustError("Error while serializing: I/O error: No space left on device (os error 28)"), "no space is left"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "no space is left"),
        (raised_from(OSError(errno.EDQUOT, "Disk quota exceeded")), "the disk quota is used up"),
    ],
)
def test_what_the_system_refuses(error: BaseException, said: str) -> None:
    found = machine_error(error)
    assert found is not None
    assert str(found).startswith(said)
    assert found.exit_code == 2
    assert "\n  " in str(found)


def test_faults_of_ours_are_none_of_them() -> None:
    for error in (
        ValueError("args.max_steps must be set"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        json.JSONDecodeError("Expecting value", "", 0),
        raised_from(KeyError("a")),
        RustError("(os error 2)"),
    ):
        assert machine_error(error) is None


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert why_not_writable(tmp_path / "new" / "deeper") is None
    assert why_not_writable(tmp_path) is None
    assert why_not_writable(tmp_path / "file") is None
    assert why_not_writable(tmp_path / "file" / "x") == f"{tmp_path / 'file'} is a file, not a folder"
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    assert why_not_writable(tmp_path / "new" / "deeper") == f"{tmp_path} cannot be written to"
