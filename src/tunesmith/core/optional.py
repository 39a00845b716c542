"""The one place that says how to install an optional package."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from tunesmith.core.errors import MissingPackageError


def is_installed(module: str) -> bool:
    """Whether `module` can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def require(module: str, extra: str, purpose: str = "") -> ModuleType:
    """Imports an optional package.

    Args:
        module: import name.
        extra: the extra of the `tunesmith` distribution that brings it.
        purpose: what needs it, for the message, such as `report_to: wandb`.

    Raises:
        MissingPackageError: it is not installed; the message holds the pip command.
    """
    if not is_installed(module.partition(".")[0]):
        reason = f"{purpose} needs" if purpose else "this needs"
        raise MissingPackageError(f"{reason} the package {module!r}; install it with: pip install 'tunesmith[{extra}]'")
    return importlib.import_module(module)
