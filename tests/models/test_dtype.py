"""Which number format is chosen: on a CPU by its units, not by a clock."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models import dtype
from tunesmith.models.dtype import inference_dtype, training_precision

FP32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(params=[False, True])
def has_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(dtype, "has_bf16_units", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize(
    ("keys", "stored", "with_units"),
    [
        ({}, FP32, None),
        ({}, BF16, "bf16"),
        ({"bf16": True}, FP32, "bf16"),
        ({"bf16": True}, BF16, "bf16"),
        ({"fp16": True}, FP32, None),
        ({"dtype": "float32"}, BF16, None),
    ],
)
def test_training(has_units: bool, keys: dict[str, Any], stored: torch.dtype, with_units: str | None) -> None:
    found = training_precision(RunConfig.from_dict({"use_cpu": True} | keys), stored)
    expected = with_units if has_units else None
    assert (found.autocast, found.trained) == (expected, FP32)
    assert found.weights == (BF16 if expected else FP32)
    assert found.reason.startswith(f"computing in {expected or 'fp32'}")


def test_an_order_is_obeyed_and_pure_bf16_is_refused(has_units: bool) -> None:
    found = training_precision(RunConfig.from_dict({"use_cpu": True, "dtype": "bfloat16"}), FP32)
    assert (found.weights, found.trained, found.autocast) == (BF16, BF16, None)
    with pytest.raises(ModelError, match="needs a GPU"):
        training_precision(RunConfig.from_dict({"use_cpu": True, "pure_bf16": True}), FP32)


def test_answers(has_units: bool) -> None:
    config = RunConfig.from_dict({"use_cpu": True})
    assert inference_dtype(config, FP32) == FP32
    assert inference_dtype(config, BF16) == (BF16 if has_units else FP32)


def test_the_cpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, expected in (({"avx2": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert dtype.has_bf16_units() is expected
