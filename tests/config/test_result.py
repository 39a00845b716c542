"""What a run has trained is loaded from where it was saved, on top of what it stood on."""

from __future__ import annotations

import pytest

from tunesmith.config.result import with_result
from tunesmith.config.schema import RunConfig


@pytest.mark.parametrize(
    ("given", "new", "expected"),
    [
        ("", False, ("out",)),
        ("a", False, ("out",)),
        ("a,b", False, ("a", "out")),
        ("a,b", True, ("a", "b", "out")),
    ],
)
def test_adapters_below_the_trained_one_stay(given: str, new: bool, expected: tuple[str, ...]) -> None:
    keys = {"model_name_or_path": "m", "output_dir": "out", "adapter_name_or_path": given, "create_new_adapter": new}
    assert with_result(RunConfig.from_dict(keys)).adapter_name_or_path == expected


def test_full_tuning_replaces_the_model() -> None:
    keys = {"model_name_or_path": "m", "output_dir": "out", "finetuning_type": "full"}
    assert with_result(RunConfig.from_dict(keys)).model_name_or_path == "out"
