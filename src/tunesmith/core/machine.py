"""What the machine refuses: a full disk, a folder that cannot be written, a lost connection; wherever it comes up."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.errors import TunesmithError

_FREE = "free some space, or choose a folder on another disk"
_MAY = "choose a place that you may use, or mend its permissions"
_SAID = {
    errno.ENOSPC: ("no space is left on the disk", _FREE),
    errno.EDQUOT: ("the disk quota is used up", _FREE),
    errno.EFBIG: ("the file is too large for this disk", _FREE),
    errno.EROFS: ("the disk can only be read", "choose a folder on another disk"),
    errno.EACCES: ("permission denied", _MAY),
    errno.EPERM: ("permission denied", _MAY),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
}
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust write the system's number: safetensors, tokenizers."""
_LOST = re.compile(
    r"Connection (?:closed by|reset by) peer|(?:NCCL|Gloo|gloo).*(?:closed|reset|aborted|timed out)", re.I
)
"""How torch's backends say that the other end is gone."""
_TORCH_WRITER = "PytorchStreamWriter failed writing"


class MachineError(TunesmithError):
    """The system refused something that the user can mend."""


def machine_error(error: BaseException) -> MachineError | None:
    """What the system refused, if that is what an error comes from; None for all others."""
    if env.world_size() > 1 and _LOST.search(str(error)):
        return MachineError(
            "the connection to another process of this run is lost: that one ended, or its machine is gone"
        )
    found: BaseException | None = error
    while found is not None:
        said = _SAID.get(_number(found) or 0)
        if said:
            return MachineError(_written(getattr(found, "filename", None), *said))
        found = found.__cause__ or found.__context__
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    match = _IN_TEXT.search(str(error))
    if match:
        return int(match.group(1))
    return errno.ENOSPC if _TORCH_WRITER in str(error) else None


def _written(place: object, what: str, fix: str) -> str:
    return f"{place}: {what}\n  {fix}" if place else f"{what}\n  {fix}"


def nearest_existing(path: Path) -> Path:
    """The path itself, or the innermost folder around it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def why_not_writable(path: Path) -> str | None:
    """Why nothing can be written at a path, a folder or file that is there or to be made; None: it can."""
    there = nearest_existing(path)
    if there != path and not there.is_dir():
        return f"{there} is a file, not a folder"
    return None if os.access(there, os.W_OK) else f"{there} cannot be written to"
