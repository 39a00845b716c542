"""Export of tiny models: what is written answers as the live model does, and six planted breakages are caught."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ExportError, ModelError
from tunesmith.models import provenance
from tunesmith.models.export import verify, writer
from tunesmith.recipes import export


def make_adapter(folder, base, *, seed=0, scale=0.5, template="chatml"):
    """A LoRA adapter with random weights that really change the answers."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    model.save_pretrained(folder)
    provenance.write_provenance(folder, base_model=str(base), base_path=base, template=template)
    return str(folder)


@pytest.fixture
def base(tiny_model_dir):
    from pathlib import Path

    return Path(tiny_model_dir)


@pytest.fixture
def adapter(tmp_path, base):
    return make_adapter(tmp_path / "adapter", base)


def config_of(tmp_path, base, adapters=(), **changes):
    keys = {
        "model_name_or_path": str(base),
        "adapter_name_or_path": list(adapters),
        "template": "auto",
        "export_dir": str(tmp_path / "out"),
        **changes,
    }
    return RunConfig.from_dict(keys, command="export")


def logits(model, ids=(5, 17, 300, 2, 9)):
    with torch.no_grad():
        return model.eval()(torch.tensor([list(ids)])).logits


def test_merged_folder_answers_as_the_adapter_does(tmp_path, base, adapter):
    folder = export.run(config_of(tmp_path, base, [adapter]))
    live = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(logits(merged), logits(live), atol=1e-5)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left"
    assert GenerationConfig.from_pretrained(folder).eos_token_id in (2, [2])
    report = json.loads((folder / "export_report.json").read_text())
    assert report["max_logit_difference"] <= report["allowed_difference"] == 1e-4
    assert report["difference_from_base"] > 0.01
    assert report["dtype"] == "float32"
    assert report["prompts"] >= 8
    assert not list(tmp_path.glob(".*tmp"))


def test_adapters_merge_in_order(tmp_path, base, adapter):
    second = make_adapter(tmp_path / "second", base, seed=1)
    folder = export.run(config_of(tmp_path, base, [adapter, second]))
    live = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    live = PeftModel.from_pretrained(live, second)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(live), atol=1e-5)


def test_without_adapter_it_is_the_same_model(tmp_path, base):
    folder = export.run(config_of(tmp_path, base))
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(folder)), logits(AutoModelForCausalLM.from_pretrained(base))
    )
    assert "difference_from_base" not in json.loads((folder / "export_report.json").read_text())


def test_infer_dtype_is_written_once_rounded(tmp_path, base, adapter):
    folder = export.run(config_of(tmp_path, base, [adapter], infer_dtype="bfloat16"))
    exact = export.run(config_of(tmp_path, base, [adapter], export_dir=str(tmp_path / "exact")))
    rounded, full = (load_file(path / "model.safetensors") for path in (folder, exact))
    assert all(torch.equal(rounded[name], full[name].bfloat16()) for name in full)


def test_named_template_goes_into_tokenizer_and_modelfile(tmp_path, base, adapter):
    folder = export.run(config_of(tmp_path, base, [adapter], template="vicuna", default_system="Be kind."))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("USER: Hi ASSISTANT:")
    modelfile = (folder / "Modelfile").read_text()
    assert "FROM .\n" in modelfile
    assert "USER: {{ .Content }} ASSISTANT:" in modelfile
    assert 'SYSTEM """Be kind."""' in modelfile
    assert 'PARAMETER stop "<|im_end|>"\n' in modelfile
    assert modelfile.endswith("PARAMETER num_ctx 256\n")


def test_modelfile_of_auto_is_derived(tmp_path, base):
    modelfile = (export.run(config_of(tmp_path, base)) / "Modelfile").read_text()
    assert '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n' in modelfile


def test_shards(tmp_path, base, adapter, monkeypatch):
    real = writer.write_weights

    def small_shards(model, folder, *, dtype, shard_gb):
        model.to(dtype).save_pretrained(folder, max_shard_size="30KB")

    assert real is not small_shards
    monkeypatch.setattr(writer, "write_weights", small_shards)
    folder = export.run(config_of(tmp_path, base, [adapter]))
    assert len(list(folder.glob("model-*.safetensors"))) > 1


# The six breakages.


def test_breakage_zero_lora_b(tmp_path, base):
    adapter = make_adapter(tmp_path / "zero", base, scale=0.0)
    with pytest.raises(ExportError, match="the merge equals the base: every lora_B"):
        export.run(config_of(tmp_path, base, [adapter]))
    assert not (tmp_path / "out").exists()


def test_breakage_adapter_of_another_base(tmp_path, base, adapter, tiny_tokenizer):
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
        model.model.layers[1].mlp.up_proj.weight *= 1.01
    model.save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    with pytest.raises(ModelError, match=r"was trained on .* and the weights in .* are others"):
        export.run(config_of(tmp_path, other, [adapter]))
    assert export.run(config_of(tmp_path, other, [adapter], force_base=True)).is_dir()


def test_breakage_wrong_scaling(tmp_path, base, adapter, monkeypatch):
    from peft.tuners.lora.layer import Linear

    real = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 2 * real(self, name))
    with pytest.raises(ExportError, match="does not answer as the live one"):
        export.run(config_of(tmp_path, base, [adapter]))
    assert not (tmp_path / "out").exists()


def test_breakage_one_matrix_left_out(tmp_path, base, monkeypatch):
    from peft.tuners.lora.layer import Linear

    real, calls = Linear.get_delta_weight, []

    def all_but_the_second(self, name):
        calls.append(self)
        return real(self, name) * (len(calls) != 2)

    monkeypatch.setattr(Linear, "get_delta_weight", all_but_the_second)
    faint = make_adapter(tmp_path / "faint", base, scale=0.02)
    with pytest.raises(ExportError, match="does not answer as the live one"):
        export.run(config_of(tmp_path, base, [faint]))
    assert len(calls) > 2


def test_rounding_noise_is_measured_and_leaves_the_model_as_it_was(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    before = logits(model)
    first, second = (verify.take_reference(model, tokenizer) for _ in range(2))
    assert torch.equal(logits(model), before)
    assert first.noise == second.noise
    assert 0 < first.noise < 1e-5
    assert not any(module._forward_hooks for module in model.modules())


def test_breakage_merge_that_did_nothing(tmp_path, base, adapter, monkeypatch):
    from peft.tuners.lora.layer import Linear

    monkeypatch.setattr(Linear, "merge", lambda self, *args, **kwargs: None)
    with pytest.raises(ExportError, match="does not answer as the live one"):
        export.run(config_of(tmp_path, base, [adapter]))


def spoiled(monkeypatch, spoil):
    """Lets the weights be written rightly, then spoils the file."""
    real = writer.write_weights

    def write(model, folder, **options):
        real(model, folder, **options)
        spoil(folder / "model.safetensors")

    monkeypatch.setattr(writer, "write_weights", write)


def test_breakage_missing_key(tmp_path, base, adapter, monkeypatch):
    def drop(file):
        tensors = load_file(file)
        del tensors["model.layers.0.mlp.up_proj.weight"]
        save_file(tensors, file, metadata={"format": "pt"})

    spoiled(monkeypatch, drop)
    with pytest.raises(ExportError, match=r"1 missing keys, such as model\.layers\.0\.mlp\.up_proj"):
        export.run(config_of(tmp_path, base, [adapter]))


def test_breakage_truncated_shard(tmp_path, base, adapter, monkeypatch):
    spoiled(monkeypatch, lambda file: file.write_bytes(file.read_bytes()[:-1000]))
    with pytest.raises(ExportError, match="is damaged"):
        export.run(config_of(tmp_path, base, [adapter]))


def test_breakage_dtype_drift(tmp_path, base, adapter, monkeypatch):
    def round_off(file):
        save_file({k: v.bfloat16() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})

    spoiled(monkeypatch, round_off)
    with pytest.raises(ExportError, match="was written as BF16, not F32"):
        export.run(config_of(tmp_path, base, [adapter]))


def test_breakage_truncated_adapter(tmp_path, base, adapter):
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ExportError, match="cut off or damaged"):
        export.run(config_of(tmp_path, base, [adapter]))


# The target.


def test_a_used_folder_is_left_alone(tmp_path, base):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("x")
    with pytest.raises(ExportError, match="not empty"):
        export.run(config_of(tmp_path, base))
    folder = export.run(config_of(tmp_path, base, overwrite_export=True))
    assert not (folder / "precious.txt").exists()
    assert (folder / "model.safetensors").is_file()


def test_a_disk_that_is_too_small_is_found_out_before_the_merge(tmp_path, base, adapter, monkeypatch):
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=size * 3 // 4))
    with pytest.raises(ExportError, match=r"out: the weights need .* are free"):
        export.run(config_of(tmp_path, base, [adapter]))
    assert not (tmp_path / "out").exists()
    export.run(config_of(tmp_path, base, [adapter], infer_dtype="bfloat16"))


def test_failed_overwrite_keeps_the_old_folder(tmp_path, base, adapter, monkeypatch):
    export.run(config_of(tmp_path, base))
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    spoiled(monkeypatch, lambda file: file.write_bytes(file.read_bytes()[:-1000]))
    with pytest.raises(ExportError):
        export.run(config_of(tmp_path, base, [adapter], overwrite_export=True))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("which", ["base", "parent"])
def test_sources_are_never_overwritten(tmp_path, base, which):
    target = base if which == "base" else base.parent
    with pytest.raises(ExportError, match="which is read here"):
        export.run(config_of(tmp_path, base, export_dir=str(target), overwrite_export=True))


def test_what_cannot_be_done_is_refused(tmp_path, base, adapter, tiny_tokenizer):
    with pytest.raises(ExportError, match="safetensors only"):
        export.run(config_of(tmp_path, base, export_legacy_format=True))
    quantised = tmp_path / "quantised"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(quantised)
    fields = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps(fields | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ExportError, match=r"quantised \(gptq\).*original, unquantised base"):
        export.run(config_of(tmp_path, quantised, [adapter]))


def test_sampling_values_of_the_base_do_not_stop_the_export(tmp_path, base, tiny_tokenizer):
    odd = tmp_path / "odd"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(odd)
    tiny_tokenizer.save_pretrained(odd)
    (odd / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}')
    folder = export.run(config_of(tmp_path, odd))
    assert GenerationConfig.from_pretrained(folder).do_sample is True
