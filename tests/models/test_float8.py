"""Products in 8-bit floats: refused where the units are missing; the layers themselves are tried by emulation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, logits

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.float8 import apply_float8, convert


def test_a_machine_without_the_units_is_told_so() -> None:
    config = RunConfig.from_dict({"fp8": True, "use_cpu": True})
    with pytest.raises(ModelError, match="needs a GPU that multiplies 8-bit floats"):
        apply_float8(make_tiny_llama(), config)


def test_layers_round_to_eight_bits_and_pass_gradients_on() -> None:
    plain, rounded = make_tiny_llama(), make_tiny_llama()
    assert convert(rounded, emulate=True) == 14
    distance = (logits(rounded, IDS) - logits(plain, IDS)).norm() / logits(plain, IDS).norm()
    assert 1e-4 < distance < 0.2
    losses = []
    optimizer = torch.optim.AdamW(rounded.parameters(), lr=1e-2)
    for _ in range(3):
        out = rounded(input_ids=IDS, labels=IDS)
        out.loss.backward()
        losses.append(out.loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that multiplies 8-bit floats")
def test_on_a_gpu_layers_are_replaced() -> None:
    model: Any = make_tiny_llama(hidden_size=64, intermediate_size=128).cuda().bfloat16()
    apply_float8(model, RunConfig.from_dict({"fp8": True}))
    model(input_ids=IDS.cuda(), labels=IDS.cuda()).loss.backward()
