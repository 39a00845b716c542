"""Models whose files are quantised already: recognised, read, trained on; what cannot be is said with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, logits

from tunesmith.config.schema import RunConfig
from tunesmith.core import optional
from tunesmith.core.errors import MissingPackageError, ModelError
from tunesmith.models.linear import is_quantized
from tunesmith.models.load import load_model
from tunesmith.models.quantizers import stored


def load(folder: Path, tokenizer: Any, *, trainable: bool = True, **keys: Any) -> Any:
    command = "train" if trainable else "chat"
    settings = {"model_name_or_path": str(folder), "use_cpu": True, "do_train": trainable, "lora_rank": 4, **keys}
    return load_model(RunConfig.from_dict(settings, command=command), tokenizer, trainable=trainable)


def learns(model: Any) -> bool:
    """Three steps, with a look in between, lower the loss."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=2e-2)
    losses = []
    for _ in range(3):
        places = torch.arange(IDS.shape[1])[None]
        out = model(input_ids=IDS, position_ids=places, row_lengths=(IDS.shape[1],)).logits[0]
        loss = torch.nn.functional.cross_entropy(out[:-1], IDS[0, 1:])
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        logits(model.eval(), IDS)
        model.train()
    return losses[-1] < losses[0] - 0.05


def trains(model: Any, folder: Path) -> None:
    """transformers' trainer takes it, too, which asks models how they are quantised."""
    from transformers import Trainer, TrainingArguments

    Trainer(model=model, args=TrainingArguments(output_dir=str(folder / "run"), use_cpu=True, report_to=[]))


@pytest.fixture
def base(tmp_path: Path, tiny_tokenizer: Any) -> Path:
    folder = tmp_path / "base"
    make_tiny_llama(hidden_size=128, intermediate_size=256).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def mark(folder: Path, method: str, **settings: Any) -> None:
    """Writes into config.json that the weights are quantised."""
    facts = json.loads((folder / "config.json").read_text())
    facts["quantization_config"] = {"quant_method": method, **settings}
    (folder / "config.json").write_text(json.dumps(facts))


def test_what_bitsandbytes_saved_is_read_and_trained_on(base: Path, tmp_path: Path, tiny_tokenizer: Any) -> None:
    before = load(base, tiny_tokenizer, trainable=False, quantization_bit=4, infer_dtype="float32")
    before.save_pretrained(tmp_path / "nf4")
    tiny_tokenizer.save_pretrained(tmp_path / "nf4")
    again = load(tmp_path / "nf4", tiny_tokenizer, trainable=False, infer_dtype="float32")
    assert torch.allclose(logits(again, IDS), logits(before, IDS), atol=1e-5)
    model = load(tmp_path / "nf4", tiny_tokenizer)
    assert sum(is_quantized(m.base_layer) for m in model.modules() if hasattr(m, "base_layer")) == 14
    assert learns(model)
    with pytest.raises(ModelError, match=r"quantised already \(bitsandbytes\)"):
        load(tmp_path / "nf4", tiny_tokenizer, quantization_bit=8)
    with pytest.raises(ModelError, match="rounded weights cannot be trained"):
        load(tmp_path / "nf4", tiny_tokenizer, finetuning_type="full")


def test_eight_bit_floats_become_plain_weights(base: Path, tiny_tokenizer: Any) -> None:
    """A block of 128 x 128 numbers shares a scale: w = q * scale, worked out here."""
    weights = load_file(base / "model.safetensors")
    written, expected = {}, {}
    for name, weight in weights.items():
        if not name.endswith("_proj.weight"):
            written[name] = weight
            continue
        rows, columns = -(-weight.shape[0] // 128), -(-weight.shape[1] // 128)
        scales = torch.zeros(rows, columns)
        rounded, whole = torch.zeros_like(weight), torch.zeros_like(weight)
        for row in range(rows):
            for column in range(columns):
                part = (slice(128 * row, 128 * row + 128), slice(128 * column, 128 * column + 128))
                scales[row, column] = weight[part].abs().max() / 448
                rounded[part] = (weight[part] / scales[row, column]).to(torch.float8_e4m3fn).float()
                whole[part] = rounded[part] * scales[row, column]
        written[name] = rounded.to(torch.float8_e4m3fn)
        written[f"{name}_scale_inv"] = scales
        expected[name] = whole
    save_file(written, base / "model.safetensors", metadata={"format": "pt"})
    mark(base, "fp8", activation_scheme="dynamic", weight_block_size=[128, 128])
    model = load(base, tiny_tokenizer, trainable=False)
    for name, weight in expected.items():
        assert torch.allclose(model.get_parameter(name), weight, atol=1e-3), name
    assert learns(load(base, tiny_tokenizer))
    trains(load(base, tiny_tokenizer), base)


def test_compressed_tensors_become_plain_weights(base: Path, tiny_tokenizer: Any) -> None:
    """Four bits, packed eight to a 32-bit word with 8 added, a scale for each 32: written here, read by the package."""
    weights = load_file(base / "model.safetensors")
    written, expected = {}, {}
    for name, weight in weights.items():
        if not name.endswith("_proj.weight"):
            written[name] = weight
            continue
        groups = weight.view(weight.shape[0], -1, 32)
        scales = groups.abs().amax(-1, keepdim=True) / 7
        rounded = (groups / scales).round().clamp(-8, 7)
        expected[name] = (rounded * scales).view_as(weight)
        nibbles = (rounded.view(weight.shape[0], -1, 8) + 8).to(torch.int64)
        words = (nibbles << (4 * torch.arange(8))).sum(-1)
        stem = name.removesuffix("weight")
        written[f"{stem}weight_packed"] = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
        written[f"{stem}weight_scale"] = scales.squeeze(-1).contiguous()
        written[f"{stem}weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
    save_file(written, base / "model.safetensors", metadata={"format": "pt"})
    kind = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
    group = {"targets": ["Linear"], "weights": kind, "input_activations": None, "output_activations": None}
    mark(
        base,
        "compressed-tensors",
        config_groups={"group_0": group},
        format="pack-quantized",
        ignore=["lm_head"],
        quantization_status="compressed",
    )
    model = load(base, tiny_tokenizer, trainable=False)
    for name, weight in expected.items():
        assert torch.allclose(model.get_parameter(name), weight, atol=1e-3), name
    assert learns(load(base, tiny_tokenizer))
    trains(load(base, tiny_tokenizer), base)


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [("gptq", "gptqmodel", "gptq"), ("awq", "gptqmodel", "gptq"), ("aqlm", "aqlm", "aqlm")],
)
def test_a_missing_package_is_named_with_its_install_line(
    method: str, package: str, extra: str, base: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark(base, method, bits=4)
    monkeypatch.setattr(optional, "is_installed", lambda name: name != package)
    with pytest.raises(MissingPackageError, match=rf"'{package}'; install it with: pip install 'tunesmith\[{extra}\]'"):
        load(base, tiny_tokenizer)


@pytest.mark.parametrize("method", ["hqq", "eetq", "auto-round"])
def test_what_no_package_reads_is_refused(method: str, base: Path, tiny_tokenizer: Any) -> None:
    mark(base, method)
    with pytest.raises(ModelError, match=f"quantised with {method}: "):
        load(base, tiny_tokenizer)


def test_on_a_cpu_gptq_and_awq_use_kernels_that_pass_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "require", lambda *_: None)

    class Config:
        quantization_config: dict[str, Any]

    for method, backend in (("gptq", "torch"), ("awq", "torch_awq")):
        config = Config()
        config.quantization_config = {"quant_method": method}
        stored.settle_stored(method, config, torch.device("cpu"), torch.float32)
        assert config.quantization_config["backend"] == backend
        config.quantization_config = {"quant_method": method}
        stored.settle_stored(method, config, torch.device("cuda", 0), torch.float16)
        assert "backend" not in config.quantization_config
