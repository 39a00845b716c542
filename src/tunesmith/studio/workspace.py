"""The folder that pages may touch: every path that a page is given goes through here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.errors import TunesmithError


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder and what may be read beside it.

    Attributes:
        root: absolute, without symbolic links.
        readable: further folders that pages may read from (models, data), never write to.
    """

    root: Path
    readable: tuple[Path, ...] = ()

    @classmethod
    def from_env(cls) -> Workspace:
        """`TUNESMITH_WORKSPACE` (default: the current folder) and `TUNESMITH_READ_PATHS`.

        Raises:
            TunesmithError: there is no such folder.
        """
        beside = (Path(name).expanduser().resolve() for name in env.folders("TUNESMITH_READ_PATHS"))
        return cls.at(env.workspace(), tuple(beside))

    @classmethod
    def at(cls, root: Path, readable: tuple[Path, ...] = ()) -> Workspace:
        """The workspace in a folder.

        Raises:
            TunesmithError: there is no such folder.
        """
        if not root.is_dir():
            raise TunesmithError(f"TUNESMITH_WORKSPACE: there is no folder {root}")
        return cls(root.resolve(), readable)

    def inside(self, path: str | Path) -> Path:
        """An absolute path in the workspace, where a page may also write.

        Args:
            path: absolute, or from the workspace on; it need not exist.

        Raises:
            TunesmithError: it leaves the workspace, with `..`, a link or by itself, or is none at all.
        """
        found = self._resolved(path)
        if not found.is_relative_to(self.root):
            raise TunesmithError(f"{path} is outside the workspace {self.root}; the page stays inside it")
        return found

    def readable_path(self, path: str | Path) -> Path:
        """An absolute path that a page may read: in the workspace or below a folder of `TUNESMITH_READ_PATHS`.

        Raises:
            TunesmithError: it is somewhere else.
        """
        found = self._resolved(path)
        if not any(found.is_relative_to(folder) for folder in (self.root, *self.readable)):
            raise TunesmithError(
                f"{path} is outside the workspace {self.root}; TUNESMITH_READ_PATHS names further folders to read from"
            )
        return found

    def shown(self, path: Path) -> str:
        """A path as the page shows it: from the workspace on where it is inside."""
        found = self.root / path
        return found.relative_to(self.root).as_posix() if found.is_relative_to(self.root) else str(found)

    def _resolved(self, path: str | Path) -> Path:
        text = str(path).strip()
        if not text or "\0" in text:
            raise TunesmithError("a path is missing" if not text else "a path holds a character that no path can hold")
        try:
            return (self.root / Path(text).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise TunesmithError(f"{text[:80]} cannot be used as a path: {error}") from error
