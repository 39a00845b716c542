"""Gradient checkpointing of every kind gives the same gradients; norms in float32; kernels that need a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS
from torch.autograd.graph import saved_tensors_hooks

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import MissingPackageError, ModelError
from tunesmith.models import checkpointing, kernels
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.checkpointing import enable_checkpointing, upcast_norms, wants_checkpointing


def config(**keys: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "tiny"} | keys)


def gradients(kind: str, keys: dict[str, Any], on: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients under dropout of a fixed seed, and how many tensors were kept for the backward pass."""
    settings = config(finetuning_type=kind, lora_dropout=0.2 if kind == "lora" else 0.0, **keys)
    model = make_tiny_llama(attention_dropout=0.3).train()
    if on:
        enable_checkpointing(model, settings)
    torch.manual_seed(5)
    model = apply_finetuning(model, settings, [], torch.float32).train()
    kept = []
    torch.manual_seed(7)
    with saved_tensors_hooks(lambda tensor: (kept.append(1), tensor)[1], lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, len(kept)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"use_unsloth_gc": True},
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}, "use_unsloth_gc": True},
        {"gradient_checkpointing_kwargs": {"use_reentrant": True, "preserve_rng_state": True}},
    ],
)
def test_gradients_are_those_without_checkpointing(kind: str, keys: dict[str, Any]) -> None:
    plain, many = gradients(kind, keys, on=False)
    found, few = gradients(kind, keys, on=True)
    assert plain.keys() == found.keys()
    assert all(torch.equal(plain[name], found[name]) for name in plain)
    assert few < many / 3


def test_the_random_state_setting_acts() -> None:
    plain, _ = gradients("full", {}, on=False)
    keys = {"gradient_checkpointing_kwargs": {"preserve_rng_state": False}}
    found, _ = gradients("full", keys, on=True)
    assert any(not torch.equal(plain[name], found[name]) for name in plain)


@pytest.mark.parametrize("offload", [False, True])
def test_offload_moves_the_input_of_each_layer_and_nothing_else(monkeypatch: pytest.MonkeyPatch, offload: bool) -> None:
    """There is no second memory here, so what would be moved is counted: two layers, their inputs of (1, 10, 32)."""
    moved: list[tuple[int, ...]] = []

    def recorder(pin_memory: bool) -> saved_tensors_hooks:
        assert not pin_memory  # page-locked memory needs an accelerator
        return saved_tensors_hooks(lambda tensor: (moved.append(tuple(tensor.shape)), tensor)[1], lambda tensor: tensor)

    monkeypatch.setattr(checkpointing, "save_on_cpu", recorder)
    gradients("full", {"use_unsloth_gc": offload}, on=True)
    assert moved == ([(1, 10, 32)] * 2 if offload else [])


def test_offload_is_asked_for_by_itself() -> None:
    assert wants_checkpointing(config(use_unsloth_gc=True))
    assert wants_checkpointing(config(gradient_checkpointing=True))
    assert not wants_checkpointing(config())


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ModelError, match="every_n"):
        enable_checkpointing(make_tiny_llama(), config(gradient_checkpointing_kwargs={"every_n": 2}))


def test_norms_in_float32_bring_a_half_model_nearer_to_a_float32_one() -> None:
    exact = make_tiny_llama().eval()
    half, upcast = make_tiny_llama().bfloat16().eval(), make_tiny_llama().bfloat16().eval()
    assert upcast_norms(upcast) == 5  # two a layer and the last one
    norms = [module for module in upcast.modules() if "Norm" in type(module).__name__]
    assert {p.dtype for module in norms for p in module.parameters()} == {torch.float32}
    assert upcast.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    for module in norms:  # a weight that bfloat16 cannot hold
        module.weight.data.fill_(1.001)
    with torch.no_grad():
        outputs = [model(input_ids=IDS).logits for model in (half, upcast)]
        upcast_exact = exact(input_ids=IDS).logits
    assert outputs[1].dtype == torch.bfloat16
    assert not torch.equal(*outputs)
    assert (outputs[1].float() - upcast_exact).abs().max() < 0.1
    assert upcast_norms(make_tiny_llama()) == 0


@pytest.mark.parametrize("key", ["enable_liger_kernel", "use_liger_kernel"])
def test_liger_is_refused_without_a_gpu(key: str) -> None:
    with pytest.raises(ModelError, match=f"{key}: true needs an NVIDIA GPU"):
        kernels.apply_liger(make_tiny_llama(), config(**{key: True}))
    model = make_tiny_llama()
    kernels.apply_liger(model, config())
    assert "Liger" not in str(type(model.model.norm))


def test_unsloth_is_refused_without_a_gpu(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="use_unsloth: true needs an NVIDIA GPU"):
        kernels.load_with_unsloth(config(use_unsloth=True), tmp_path, torch.float32)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MissingPackageError, match=r"tunesmith\[unsloth\]"):
        kernels.load_with_unsloth(config(use_unsloth=True), tmp_path, torch.float32)
    with pytest.raises(MissingPackageError, match=r"tunesmith\[liger-kernel\]"):
        kernels.apply_liger(make_tiny_llama(), config(enable_liger_kernel=True))


@pytest.mark.gpu
def test_liger_gives_the_loss_of_plain_kernels() -> None:
    pytest.importorskip("liger_kernel")
    losses = []
    for on in (False, True):
        model = make_tiny_llama().cuda()
        if on:
            kernels.apply_liger(model, config(enable_liger_kernel=True))
        losses.append(model(input_ids=IDS.cuda(), labels=IDS.cuda()).loss)
    assert torch.allclose(losses[0], losses[1], atol=1e-4)


@pytest.mark.gpu
def test_unsloth_loads_a_model_that_gives_gradients(tiny_model_dir: str) -> None:
    pytest.importorskip("unsloth")
    model = kernels.load_with_unsloth(config(use_unsloth=True), Path(tiny_model_dir), torch.bfloat16)
    model(input_ids=IDS.cuda(), labels=IDS.cuda()).loss.backward()
    assert any(weight.grad is not None for weight in model.parameters())
