"""Fused layers give the numbers and gradients of the layers that they replace, and leave all others alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import RunConfig
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.fused import fuse


def adapted(**keys: Any) -> Any:
    torch.manual_seed(2)
    config = RunConfig.from_dict({"model_name_or_path": "tiny", "lora_rank": 4} | keys)
    model = apply_finetuning(make_tiny_llama(mlp_bias=True, attention_bias=True), config, [], torch.float32)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def gradients(model: Any, ids: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), found


def test_loss_and_every_gradient_are_the_same() -> None:
    model, ids = adapted(), torch.arange(3, 203).reshape(2, 100)  # more tokens than one chunk of the gate
    loss, plain = gradients(model, ids)
    assert fuse(model) == 2 * 7 + 2
    fused_loss, fused = gradients(model, ids)
    assert fused_loss == pytest.approx(loss, rel=1e-6)
    assert fused.keys() == plain.keys()
    for name, value in plain.items():
        assert torch.allclose(fused[name], value, atol=1e-5 * float(value.abs().max()) + 1e-8), name


def test_saving_and_merging_see_no_difference() -> None:
    model, ids = adapted(), torch.arange(3, 13)[None]
    names = set(model.state_dict())
    fuse(model)
    assert set(model.state_dict()) == names
    model.eval()
    live = model(input_ids=ids).logits
    assert torch.allclose(model.merge_and_unload()(input_ids=ids).logits, live, atol=1e-5)


def test_a_switched_off_adapter_gives_the_base() -> None:
    model, ids = adapted(), torch.arange(3, 13)[None]
    model.eval()
    with model.disable_adapter():
        before = model(input_ids=ids).logits
    fuse(model)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("keys", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_other_kinds_of_adapters_keep_their_own_code(keys: dict[str, Any]) -> None:
    assert fuse(adapted(**keys)) == 2  # the gates of the two layers


def test_a_gate_with_another_activation_is_left_alone() -> None:
    model = make_tiny_llama(hidden_act="gelu")
    assert fuse(model) == 0


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_under_autocast_layers_compute_as_before(half: torch.dtype) -> None:
    """As in evaluation with `bf16_full_eval` of a run that trains in fp32."""
    model, ids = adapted(), torch.arange(3, 13)[None]
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", half):
        before = model(input_ids=ids).logits
        fuse(model)
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-2)
