"""What becomes trainable, and that what was trained is what is loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import make_tiny_llama, make_tiny_tokenizer

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import apply_finetuning, count_parameters, load_adapter, merge_adapters
from tunesmith.models.forward import base_model_of
from tunesmith.models.targets import linear_names
from tunesmith.models.vocabulary import fit_vocabulary

ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def config(**keys: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "tiny", "lora_rank": 4} | keys)


def train_a_little(model: torch.nn.Module, ids: torch.Tensor) -> None:
    """Three steps, so that every trainable tensor has moved."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def test_all_means_every_linear_but_the_head() -> None:
    assert linear_names(make_tiny_llama()) == ALL
    assert linear_names(make_tiny_llama(tie_word_embeddings=False)) == ALL


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_target": "q_prj"}, r"lora_target.*'q_prj'; did you mean 'q_proj'"),
        ({"additional_target": "embed_token"}, r"additional_target.*did you mean 'embed_tokens'"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 3}, r"freeze_trainable_layers: 3 is not within 1..2"),
        ({"finetuning_type": "freeze", "freeze_trainable_modules": "mpl"}, r"no module 'mpl' in a layer"),
        ({"finetuning_type": "freeze", "freeze_extra_modules": "nrm"}, r"freeze_extra_modules.*did you mean 'norm'"),
    ],
)
def test_names_that_match_nothing_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        apply_finetuning(make_tiny_llama(), config(**keys), [], torch.float32)


def test_lora_counts_by_hand() -> None:
    """r = 4 on q (32->32), k and v (32->16), o (32->32): 4*(64 + 48 + 48 + 64) = 896 a layer, two layers."""
    model = apply_finetuning(make_tiny_llama(), config(lora_target="q_proj,k_proj,v_proj,o_proj"), [], torch.float32)
    assert count_parameters(model)[0] == 2 * 896


def test_freezing_the_first_layers_by_a_negative_count() -> None:
    keys = {"finetuning_type": "freeze", "freeze_trainable_layers": -1}
    model = apply_finetuning(make_tiny_llama(), config(**keys), [], torch.float32)
    trained = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0"}


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_train_their_rows_alone_and_come_back_on_every_path(tmp_path: Path, tied: bool) -> None:
    keys = config(add_tokens="<a>,<b>", add_special_tokens="<|c|>,<|d|>")
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<a>", "<b>"])
    tokenizer.add_tokens(["<|c|>", "<|d|>"], special_tokens=True)
    vocabulary = len(tokenizer) - 2  # two of the four find no row
    model = make_tiny_llama(tie_word_embeddings=tied, vocab_size=vocabulary)
    new_ids = fit_vocabulary(model, tokenizer, keys)
    assert new_ids == list(range(len(tokenizer) - 4, len(tokenizer)))
    before = model.get_input_embeddings().weight.detach().clone()
    model = apply_finetuning(model, keys, new_ids, torch.float32)
    ids = torch.tensor([[5, new_ids[0], 9, new_ids[3], 7, new_ids[1], new_ids[2]]])
    train_a_little(model, ids)
    expected = model(input_ids=ids).logits.detach()
    model.save_pretrained(tmp_path)
    with safe_open(str(tmp_path / "adapter_model.safetensors"), "pt") as handle:
        rows = [handle.get_slice(key).get_shape() for key in handle.keys() if "token" in key]  # noqa: SIM118
    assert rows == [[4, 32]] * (1 if tied else 2)  # the adapter grows by the rows added, not by the matrix

    fresh = make_tiny_llama(tie_word_embeddings=tied, vocab_size=vocabulary)
    fit_vocabulary(fresh, tokenizer, keys)
    live = load_adapter(fresh, tmp_path).eval()
    assert torch.allclose(live(input_ids=ids).logits, expected, atol=1e-5)
    merged = live.merge_and_unload()
    assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)
    table = merged.get_input_embeddings().weight
    assert torch.equal(table[: new_ids[0]], before[: new_ids[0]])
    assert not torch.equal(table[new_ids], before[new_ids])
    assert (merged.get_output_embeddings().weight.data_ptr() == table.data_ptr()) is tied


def test_rows_are_not_added_unasked() -> None:
    tokenizer = make_tiny_tokenizer()
    model = make_tiny_llama(vocab_size=len(tokenizer) - 1)
    with pytest.raises(ModelError, match="resize_vocab"):
        fit_vocabulary(model, tokenizer, config())
    assert fit_vocabulary(model, tokenizer, config(resize_vocab=True)) == [len(tokenizer) - 1]


def test_described_tokens_start_at_the_mean_of_their_description(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text('"<|fox|>": "quick brown fox"\n')
    keys = config(new_special_tokens_config=str(tmp_path / "new.yaml"), init_special_tokens="desc_init")
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<|fox|>"], special_tokens=True)
    model = make_tiny_llama()
    [place] = fit_vocabulary(model, tokenizer, keys)
    words = tokenizer("quick brown fox", add_special_tokens=False)["input_ids"]
    table = model.get_input_embeddings().weight
    assert torch.allclose(table[place], table[words].mean(0), atol=1e-6)


def _saved(folder: Path, **keys: Any) -> Path:
    torch.manual_seed(len(str(folder)))
    model = apply_finetuning(make_tiny_llama(), config(**keys), [], torch.float32)
    train_a_little(model, torch.arange(5, 15)[None])
    model.save_pretrained(folder)
    return folder


def test_adapters_merge_in_order_and_the_last_is_continued(tmp_path: Path) -> None:
    first, second = _saved(tmp_path / "1"), _saved(tmp_path / "22")
    ids = torch.arange(20, 30)[None]
    continued = apply_finetuning(make_tiny_llama(), config(), [], torch.float32, [first, second]).eval()
    both = merge_adapters(make_tiny_llama(), [first, second]).eval()
    assert torch.allclose(continued(input_ids=ids).logits, both(input_ids=ids).logits, atol=1e-5)
    assert count_parameters(continued)[0] > 0
    keys = config(create_new_adapter=True)
    stacked = apply_finetuning(make_tiny_llama(), keys, [], torch.float32, [first, second]).eval()
    assert torch.allclose(stacked(input_ids=ids).logits, both(input_ids=ids).logits, atol=1e-5)
    names = [name for name, p in stacked.named_parameters() if p.requires_grad and "lora_B" in name]
    assert names
    assert all(stacked.get_parameter(name).abs().sum() == 0 for name in names)


@pytest.mark.parametrize("fault", ["missing key", "foreign key", "wrong shape", "no config"])
def test_an_adapter_that_is_not_whole_is_refused(tmp_path: Path, fault: str) -> None:
    folder = _saved(tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    if fault == "missing key":
        del tensors[first]
    elif fault == "foreign key":
        tensors[first.replace("layers.0", "layers.9")] = tensors[first].clone()
    elif fault == "wrong shape":
        tensors[first] = tensors[first][:, :3].contiguous()
    else:
        (folder / "adapter_config.json").unlink()
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"not whole|does not fit|adapter_config.json"):
        load_adapter(make_tiny_llama(), folder)


def test_base_model_is_found_under_wrappers() -> None:
    model = apply_finetuning(make_tiny_llama(), config(), [], torch.float32)
    assert type(base_model_of(model)).__name__ == "LlamaForCausalLM"
