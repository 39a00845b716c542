"""A tracker that is not installed is named before anything is loaded."""

import pytest

from tunesmith.core.errors import MissingPackageError
from tunesmith.training import trackers


def test_a_missing_tracker_is_refused_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", "no_such_package_here")
    with pytest.raises(MissingPackageError, match=r"report_to: wandb needs.*pip install 'tunesmith\[wandb\]'"):
        trackers.check_trackers(["tensorboard_of_the_future", "wandb"])


def test_none_needs_nothing() -> None:
    trackers.check_trackers(["none"])
