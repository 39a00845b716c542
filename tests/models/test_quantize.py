"""Quantised bases: layers really hold fewer bits, adapters learn on them, and what cannot be is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import count_parameters
from tunesmith.models.forward import HiddenForward
from tunesmith.models.linear import count_weights, held_bytes, is_linear, is_quantized
from tunesmith.models.load import load_model
from tunesmith.models.memory import activation_bytes_per_token
from tunesmith.models.packed import pack

IDS = torch.arange(3, 60)[None]

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"quantization_bit": 4},
    "fp4": {"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False},
    "bnb8": {"quantization_bit": 8},
    "hqq8": {"quantization_bit": 8, "quantization_method": "hqq"},
    "hqq4": {"quantization_bit": 4, "quantization_method": "hqq"},
    "hqq3": {"quantization_bit": 3, "quantization_method": "hqq"},
    "hqq2": {"quantization_bit": 2, "quantization_method": "hqq"},
    "torchao8": {"quantization_bit": 8, "quantization_method": "torchao"},
    "quanto8": {"quantization_bit": 8, "quantization_method": "quanto"},
}
ERRORS = {"nf4": 0.2, "fp4": 0.3, "bnb8": 0.03, "hqq8": 0.03, "hqq4": 0.2, "hqq3": 0.4, "hqq2": 0.9, "torchao8": 0.03}
"""Highest distance of the logits from the plain model's, as a share of them."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    """Wide enough for blocks of 64 numbers."""
    folder = tmp_path_factory.mktemp("base")
    make_tiny_llama(hidden_size=128, intermediate_size=256).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def load(base: str, tokenizer: Any, *, command: str = "train", trainable: bool = True, **keys: Any) -> Any:
    settings = {"model_name_or_path": base, "use_cpu": True, "do_train": trainable, "lora_rank": 4, **keys}
    return load_model(RunConfig.from_dict(settings, command=command), tokenizer, trainable=trainable)


def linear(model: Any) -> list[Any]:
    head = model.get_output_embeddings()
    inside = [module for name, module in model.named_modules() if "lora_" not in name]
    return [module for module in inside if is_linear(module) and module is not head]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, position_ids=torch.arange(IDS.shape[1])[None]).logits


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_holds_fewer_bits_and_the_log_says_how_many(
    kind: str, base: str, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = load(base, tiny_tokenizer, command="chat", trainable=False, **KINDS[kind])
    plain = load(base, tiny_tokenizer, command="chat", trainable=False)
    layers = linear(model)
    assert len(layers) == 14
    assert all(is_quantized(layer) for layer in layers)
    assert not any(is_quantized(layer) for layer in linear(plain))
    bits = KINDS[kind]["quantization_bit"]
    numbers = sum(count_weights(layer) for layer in layers)
    each = 8 * sum(held_bytes(layer) for layer in layers) / numbers
    # Scales, and zeros of hqq: 3 bits are stored ten to a 32-bit word.
    assert bits <= each <= bits + (1.3 if "hqq" in kind else 1.0)
    assert count_parameters(model)[1] == count_parameters(plain)[1]
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("quantised: "))
    assert line.startswith("quantised: 14 of 14 linear layers")
    assert f"instead of {numbers * 4 / 1e6:.1f} MB in float32" in line
    distance = (logits(model) - logits(plain)).norm() / logits(plain).norm()
    assert 1e-4 < distance < ERRORS.get(kind, 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_on_it_and_a_look_in_between_changes_nothing(
    kind: str, base: str, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """Four steps lower the loss; a pass without gradients before each leaves the same adapter, bit for bit; the saved
    adapter fits the plain base."""
    ends = []
    for looks in (False, True):
        model = load(base, tiny_tokenizer, **KINDS[kind])
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        assert trained
        assert {weight.dtype for weight in trained} == {torch.float32}
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        losses = []
        for _ in range(4):
            if looks:
                logits(model.eval())
                model.train()
            loss = torch.nn.functional.cross_entropy(
                model(input_ids=IDS, position_ids=torch.arange(IDS.shape[1])[None], row_lengths=(57,)).logits[0, :-1],
                IDS[0, 1:],
            )
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0] - 0.1
        ends.append({name: value for name, value in model.named_parameters() if value.requires_grad})
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    model.save_pretrained(tmp_path)
    whole = load(base, tiny_tokenizer, command="chat", trainable=False, adapter_name_or_path=str(tmp_path))
    plain = load(base, tiny_tokenizer, command="chat", trainable=False)
    again = load(
        base, tiny_tokenizer, command="chat", trainable=False, adapter_name_or_path=str(tmp_path), **KINDS[kind]
    )
    moved = (logits(whole) - logits(plain)).norm()
    assert moved > 0.05 * logits(plain).norm()
    assert torch.allclose(logits(again), logits(model.eval()), atol=2e-2, rtol=1e-2)


def test_gradient_checkpointing_gives_the_same_gradients(base: str, tiny_tokenizer: Any) -> None:
    found = []
    for on in (False, True):
        model = load(base, tiny_tokenizer, quantization_bit=4, gradient_checkpointing=on)
        out = model(input_ids=IDS, position_ids=torch.arange(57)[None], row_lengths=(57,)).logits
        out.square().mean().backward()
        found.append({n: w.grad.clone() for n, w in model.named_parameters() if w.requires_grad})
    assert found[0]
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-7), name
    assert any(value.norm() > 0 for value in found[0].values())


@pytest.mark.parametrize("kind", ["nf4", "bnb8", "hqq4", "torchao8", "quanto8"])
def test_memory_plan_and_packing_cope_with_it(kind: str, base: str, tiny_tokenizer: Any) -> None:
    """Activations are counted as on the plain model: quantised weights are no activations. No layer is packed."""
    model, plain = load(base, tiny_tokenizer, **KINDS[kind]), load(base, tiny_tokenizer)
    forward = HiddenForward(model)
    assert forward.is_plain_head
    counted = activation_bytes_per_token(model, forward)
    assert counted < 3 * activation_bytes_per_token(plain, HiddenForward(plain))
    answering = load(base, tiny_tokenizer, command="chat", trainable=False, **KINDS[kind])
    before = logits(answering)
    assert pack(answering) <= 1  # the head
    assert torch.allclose(logits(answering), before, atol=1e-3)


def test_new_tokens_get_rows_beside_quantised_layers(base: str, tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens([f"<new{number}>" for number in range(60)])
    model = load(base, tokenizer, quantization_bit=4, add_tokens="<new1>,<new2>")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad and "trainable_tokens" in name]
    assert names
    layers = [module for name, module in model.named_modules() if is_linear(module) and "layers." in name]
    assert sum(is_quantized(layer) for layer in layers) == 14


def test_a_value_head_and_dora_fit_on_it(base: str, tiny_tokenizer: Any) -> None:
    model = load(base, tiny_tokenizer, quantization_bit=4, use_dora=True, stage="rm")
    trained = {name.rsplit(".", 2)[-2] for name, weight in model.named_parameters() if weight.requires_grad}
    assert {"summary", "default"} <= trained


def test_merging_into_rounded_weights_is_refused(base: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = load(base, tiny_tokenizer)
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(ModelError, match="merged into quantised weights"):
        load(base, tiny_tokenizer, quantization_bit=4, adapter_name_or_path=[str(tmp_path / "a")] * 2)


def test_what_this_machine_cannot_is_refused_with_the_reason(base: str, tiny_tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="int4 products have no CPU kernel"):
        load(base, tiny_tokenizer, command="chat", trainable=False, quantization_bit=4, quantization_method="torchao")
    with pytest.raises(ModelError, match="train_from_scratch and quantization_bit"):
        load(base, tiny_tokenizer, quantization_bit=4, train_from_scratch=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [*KINDS, "torchao4"])
def test_on_a_gpu_layers_are_quantised_there_and_adapters_get_gradients(
    kind: str, base: str, tiny_tokenizer: Any
) -> None:
    if kind == "torchao4":  # answers only
        keys = {"quantization_bit": 4, "quantization_method": "torchao", "infer_dtype": "bfloat16"}
        model = load(base, tiny_tokenizer, command="chat", trainable=False, use_cpu=False, **keys)
        assert all(is_quantized(layer) for layer in linear(model))
        return
    model = load(base, tiny_tokenizer, use_cpu=False, **KINDS[kind])
    assert all(is_quantized(layer) for layer in linear(model))
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    out = model(input_ids=IDS.cuda(), position_ids=torch.arange(57)[None].cuda(), row_lengths=(57,)).logits
    out.float().square().mean().backward()
    assert any(weight.grad is not None and weight.grad.norm() > 0 for weight in model.parameters())
