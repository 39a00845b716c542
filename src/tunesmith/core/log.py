"""What the user sees on the terminal: plain lines on stderr, one prefix a level, rank 0 only; results go to stdout."""

from __future__ import annotations

import logging
import sys
import warnings

from tunesmith.core import env
from tunesmith.core.errors import EnvironmentValueError

_NAME = "tunesmith"
_ALIASES = ("WARN", "FATAL", "NOTSET")
"""Further names of logging for the same."""
_CHATTY = ("bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers that speak of faster kernels of other packages and of changes to come, whenever peft is imported."""


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            return f"error: {text}"
        if record.levelno >= logging.WARNING:
            return f"warning: {text}"
        return text


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the sys.stderr of the moment, so that captured and redirected streams see it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def setup() -> None:
    """Installs the handler once; the level comes from `TUNESMITH_VERBOSITY` or `LLAMAFACTORY_VERBOSITY`.

    Raises:
        EnvironmentValueError: there is no such level.
    """
    logger = logging.getLogger(_NAME)
    if not logger.handlers:
        handler = _StderrHandler()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
        logger.propagate = False
    level = _level()
    logger.setLevel(level if env.rank() == 0 else max(level, logging.WARNING))


def _level() -> int:
    levels = logging.getLevelNamesMapping()
    for variable in ("TUNESMITH_VERBOSITY", "LLAMAFACTORY_VERBOSITY"):
        if name := env.get(variable):
            if name.upper() not in levels:
                known = ", ".join(word for word in levels if word not in _ALIASES)
                raise EnvironmentValueError(f"the environment variable {variable} must be one of {known}, not {name!r}")
            return levels[name.upper()]
    return logging.INFO


def quiet_libraries() -> None:
    """Keeps the deprecation notes that libraries write to each other off the user's terminal."""
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


def get_logger(module: str) -> logging.Logger:
    """The logger of a module; pass `__name__`."""
    return logging.getLogger(module if module.startswith(_NAME) else f"{_NAME}.{module}")
