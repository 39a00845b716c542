"""The exception tree. A message says what is wrong, where (key, file, row) and what to do; the CLI exits 2 with it."""

from __future__ import annotations

from dataclasses import dataclass


class TunesmithError(Exception):
    """Base of every error that a user can cause and mend; shown without a traceback, exit status 2."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration or a data set.

    Attributes:
        what: the fault in one sentence.
        where: `file:line`, `--flag`, `file, row N, column C`; empty when it has no place.
        fix: what to do; empty when `what` says it.
    """

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n    {self.fix}" if self.fix else head


class ProblemsError(TunesmithError):
    """Several problems reported at once."""

    title = "problems"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        noun = self.title if count != 1 else self.title.removesuffix("s")
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{count} {noun}:\n{lines}")


class ConfigError(ProblemsError):
    """The configuration cannot be used: every problem found, with file:line and the nearest key."""

    title = "configuration problems"


class DataError(ProblemsError):
    """The data cannot be used: file, row, column, reason."""

    title = "data problems"


class EnvironmentValueError(TunesmithError):
    """An environment variable holds a value that cannot be used."""


class TemplateError(TunesmithError):
    """A template does not exist, does not fit the tokenizer, or cannot render a conversation."""


class ModelError(TunesmithError):
    """A model or adapter cannot be found, loaded, or does not fit its base."""


class BusyError(TunesmithError):
    """More is asked for than can wait; the same request may be taken later."""


class ExportError(TunesmithError):
    """An exported folder does not answer as the live model does, or cannot be written."""


class TrainingError(TunesmithError):
    """Training cannot start or go on: non-finite loss, no disk space, an output folder in use."""


class ServingError(TunesmithError):
    """The server cannot start: an address that others reach without a key, a port in use."""


class GeneratorError(TunesmithError):
    """The model that should write data cannot be asked: wrong address, no or a wrong key, no such model."""


class MissingPackageError(TunesmithError):
    """An optional package is needed; the message holds the pip command."""


class Interrupted(TunesmithError):  # noqa: N818 - asked for, hence no error, but it leaves by the same door
    """Stopped by a signal after a checkpoint was written.

    Attributes:
        exit_code: 128 + the signal's number, as shells report it.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
