"""PiSSA: the principal part leaves the base, comes back with the adapter, and can be made a plain LoRA."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_tiny_llama
from tests.models.tiny import logits, trained

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import apply_finetuning, load_adapter, merge_adapters
from tunesmith.models.live_adapter import load_live_adapter, obstacle, read_settings
from tunesmith.models.pissa import BACKUP, CONVERTED, START, convert

Q = "model.layers.0.self_attn.q_proj"


def start(resume: Path | None = None, adapters: list[Path] | None = None, **keys: Any) -> Any:
    settings = {"model_name_or_path": "tiny", "pissa_init": True, "lora_target": "q_proj,down_proj"} | keys
    if not adapters:
        settings.setdefault("lora_rank", 4)
    torch.manual_seed(0)
    config = RunConfig.from_dict(settings)
    return apply_finetuning(make_tiny_llama(), config, [], torch.float32, adapters or [], resume)


def layer(model: Any) -> Any:
    return model.get_base_model().get_submodule(Q)


@pytest.mark.parametrize("iterations", [-1, 16])
def test_it_starts_as_the_base_with_the_largest_singular_parts_in_the_adapter(iterations: int) -> None:
    """W = U S V': the adapter holds U_4 S_4 V_4', so the rest has singular values S_5, S_6 and so on."""
    base = make_tiny_llama()
    values = torch.linalg.svdvals(base.get_submodule(Q).weight.detach())
    model = start(pissa_iter=iterations)
    assert torch.allclose(logits(model), logits(base), atol=1e-5)
    module = layer(model)
    rest = torch.linalg.svdvals(module.base_layer.weight.detach())
    near = 1e-3 if iterations == -1 else 0.1  # the fast way is good where values fall fast; these are flat
    assert torch.allclose(rest[:8], values[4:12], rtol=near)
    taken = module.get_delta_weight("default")
    assert torch.allclose(torch.linalg.svdvals(taken.detach())[:4], values[:4], rtol=near)


def test_the_number_of_iterations_acts() -> None:
    few, many, exact = (layer(start(pissa_iter=n)).base_layer.weight for n in (0, 16, -1))
    assert not torch.equal(few, many)
    assert not torch.equal(many, exact)
    assert torch.linalg.matrix_norm(few) > torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("keys", [{}, {"use_rslora": True}, {"lora_alpha": 3}, {"additional_target": "norm"}])
def test_the_trained_adapter_is_the_same_live_merged_and_converted(tmp_path: Path, keys: dict[str, Any]) -> None:
    model = trained(start(**keys))
    expected = logits(model)
    assert (expected - logits(make_tiny_llama())).abs().max() > 1e-3
    model.save_pretrained(str(tmp_path))
    assert (tmp_path / START).is_file()
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path)), expected, atol=1e-6)
    assert torch.allclose(logits(merge_adapters(make_tiny_llama(), [tmp_path])), expected, atol=1e-5)
    convert(tmp_path)
    plain = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (plain["r"], plain["init_lora_weights"]) == (8, True)
    for folder in (tmp_path, tmp_path / CONVERTED):
        assert torch.allclose(logits(_in_plain_peft(folder)), expected, atol=1e-5)
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path / BACKUP)), expected, atol=1e-6)


def _in_plain_peft(folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(make_tiny_llama(), str(folder))


def test_a_resumed_run_has_the_bits_of_the_first_base(tmp_path: Path) -> None:
    """A second random decomposition would differ: the start is read, not computed."""
    first = trained(start())
    first.save_pretrained(str(tmp_path))
    torch.manual_seed(99)
    again = start(resume=tmp_path)
    assert torch.equal(layer(again).base_layer.weight, layer(first).base_layer.weight)
    started = load_file(tmp_path / START)
    name = f"base_model.model.{Q}.lora_A.weight"
    assert torch.equal(layer(again).lora_A["default"].weight, started[name])
    again.save_pretrained(str(tmp_path / "again"))
    settings = [json.loads((path / "adapter_config.json").read_text()) for path in (tmp_path, tmp_path / "again")]
    assert settings[0]["init_lora_weights"] == settings[1]["init_lora_weights"] == "pissa_niter_16"


def test_an_unconverted_adapter_is_trained_on_and_saved_with_its_start(tmp_path: Path) -> None:
    first = trained(start())
    first.save_pretrained(str(tmp_path / "a"))
    again = trained(start(adapters=[tmp_path / "a"], pissa_init=False))
    again.save_pretrained(str(tmp_path / "b"))
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path / "b")), logits(again), atol=1e-6)
    assert not torch.allclose(logits(again), logits(first), atol=1e-3)


def test_serving_beside_others_takes_the_converted_one_only(tmp_path: Path) -> None:
    model = trained(start())
    model.save_pretrained(str(tmp_path))
    assert "PiSSA" in (obstacle(read_settings(tmp_path)) or "")
    convert(tmp_path)
    assert obstacle(read_settings(tmp_path)) is None
    assert Q in load_live_adapter("a", tmp_path, make_tiny_llama(), 1).modules


def test_a_foreign_adapter_without_its_start_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(start()).save_pretrained(str(tmp_path))
    (tmp_path / START).unlink()
    with caplog.at_level(logging.WARNING):
        load_adapter(make_tiny_llama(), tmp_path)
    assert "answers may differ" in caplog.text
    with pytest.raises(ModelError, match="pissa_init"):
        convert(tmp_path)


def test_more_parts_than_a_weight_has_are_refused() -> None:
    with pytest.raises(ModelError, match="principal parts"):
        start(lora_rank=20, lora_target="k_proj")
