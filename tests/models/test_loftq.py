"""LoftQ: the run begins nearer to the full model, and what it learned fits the unquantised base as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, logits, trained

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models import loftq
from tunesmith.models.adapters import apply_finetuning, load_adapter
from tunesmith.models.live_adapter import load_live_adapter
from tunesmith.models.load import load_model

NAME = "model.layers.0.self_attn.q_proj"
KINDS = {
    "nf4": {"quantization_bit": 4},
    "hqq2": {"quantization_bit": 2, "quantization_method": "hqq"},
    "bnb8": {"quantization_bit": 8},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    folder = tmp_path_factory.mktemp("base")
    make_tiny_llama(hidden_size=128, intermediate_size=256).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def load(base: str, tokenizer: Any, trainable: bool = True, **keys: Any) -> Any:
    settings = {"model_name_or_path": base, "use_cpu": True, "lora_rank": 16, "infer_dtype": "float32", **keys}
    command = "train" if trainable else "chat"
    return load_model(RunConfig.from_dict(settings, command), tokenizer, trainable=trainable)


@pytest.mark.parametrize("kind", ["nf4", "hqq2"])
def test_it_starts_nearer_to_the_full_model(base: str, tiny_tokenizer: Any, kind: str) -> None:
    exact = logits(load(base, tiny_tokenizer, trainable=False))
    plain, started = (load(base, tiny_tokenizer, loftq_init=on, **KINDS[kind]) for on in (False, True))
    far, near = ((logits(model) - exact).norm() for model in (plain, started))
    assert near < 0.85 * far
    layer = started.get_base_model().get_submodule(NAME)
    full = load_file(Path(base) / "model.safetensors")[f"{NAME}.weight"]
    error = full - loftq.rounded_weight(layer.base_layer)
    best = torch.linalg.svdvals(error)[16:].square().sum().sqrt()  # no matrix of rank 16 comes nearer
    left = (error - layer.get_delta_weight("default").detach()).norm()
    assert best <= left * 1.0001
    assert left < 1.05 * best


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_says_what_it_multiplies_with(base: str, tiny_tokenizer: Any, kind: str) -> None:
    model = load(base, tiny_tokenizer, trainable=False, **KINDS[kind])
    layer = model.get_submodule(NAME)
    x = torch.randn(5, 128)
    rounding = 0.05 if kind == "bnb8" else 1e-5  # 8 bits of bitsandbytes round inputs as well
    assert torch.allclose(layer(x), x @ loftq.rounded_weight(layer).T, atol=rounding)


def test_the_trained_adapter_loads_on_both_bases(base: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = trained(load(base, tiny_tokenizer, loftq_init=True, **KINDS["nf4"]), rate=1e-3)
    expected = logits(model)
    model.save_pretrained(str(tmp_path))
    keys = {"adapter_name_or_path": str(tmp_path)}
    again = load(base, tiny_tokenizer, trainable=False, **KINDS["nf4"], **keys)
    assert torch.allclose(logits(again), expected, atol=1e-4)
    full = logits(load(base, tiny_tokenizer, trainable=False, **keys))
    assert (full - expected).norm() < 0.2 * (expected - logits(load(base, tiny_tokenizer, trainable=False))).norm()
    (tmp_path / loftq.START).unlink()
    unfounded = logits(load(base, tiny_tokenizer, trainable=False, **keys))  # the start counts twice
    assert (full - expected).norm() < 0.8 * (unfounded - expected).norm()


def test_a_resumed_run_keeps_its_start(base: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    first = load(base, tiny_tokenizer, loftq_init=True, **KINDS["nf4"])
    first.save_pretrained(str(tmp_path))
    started = load_file(tmp_path / loftq.START)
    config = RunConfig.from_dict({"model_name_or_path": base, "lora_rank": 16, "loftq_init": True})
    torch.manual_seed(77)
    quantised = load(base, tiny_tokenizer, trainable=False, **KINDS["nf4"])
    again = apply_finetuning(quantised, config, [], torch.float32, resume=tmp_path)
    key = f"base_model.model.{NAME}.lora_A.weight"
    assert torch.equal(again.get_submodule(key.removesuffix(".weight")).default.weight, started[key])


def test_it_is_not_served_beside_others(base: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    load(base, tiny_tokenizer, loftq_init=True, **KINDS["nf4"]).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="loftq_init"):
        load_live_adapter("a", tmp_path, load(base, tiny_tokenizer, trainable=False), 1)


def test_a_base_that_is_not_quantised_is_refused() -> None:
    config = RunConfig.from_dict({"model_name_or_path": "tiny", "loftq_init": True})
    with pytest.raises(ModelError, match="no layer of this base is quantised"):
        apply_finetuning(make_tiny_llama(), config, [], torch.float32)


def test_plain_adapters_are_left_as_they_are(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"model_name_or_path": "tiny", "lora_rank": 4})
    model = trained(apply_finetuning(make_tiny_llama(), config, [], torch.float32))
    model.save_pretrained(str(tmp_path))
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path)), logits(model, IDS), atol=1e-6)
