"""Targets by name, pattern and expert; OFT; what is said when an adapter that is trained on is asked to be another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, adapted, logits, make_tiny_mixtral, trained

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import apply_finetuning, count_parameters, load_adapter, merge_adapters
from tunesmith.models.targets import layers_of


def config(**keys: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "tiny", "lora_rank": 4} | keys)


def new(model: torch.nn.Module | None = None, **keys: Any) -> Any:
    torch.manual_seed(0)
    return apply_finetuning(model or make_tiny_llama(), config(**keys), [], torch.float32)


def test_a_pattern_chooses_layers_by_their_whole_names() -> None:
    model = new(lora_target=r"model\.layers\.1\..*(q|v)_proj")
    assert adapted(model) == ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]


def test_patterns_and_names_go_together() -> None:
    model = new(lora_target=[r"model\.layers\.0\.mlp\..*", "o_proj"])
    assert adapted(model) == [
        "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj",
    ]  # fmt: skip


def test_an_adapter_on_a_pattern_comes_back(tmp_path: Path) -> None:
    model = trained(new(lora_target=r".*\.(q|down)_proj"))
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path)), logits(model), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (r"layers\.1\..*", r"matches the whole name of no linear layer; such a name is 'model.layers.0"),
        (r"(q_proj", r"is no regular expression"),
        (r".*\.lm_head", r"matches the whole name of no linear layer"),
    ],
)
def test_patterns_that_match_nothing_are_refused(target: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        new(lora_target=[target])


def test_an_embedding_takes_an_adapter_where_it_is_not_tied_to_the_head(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lora_target: embed_tokens is tied"):
        new(lora_target="q_proj,embed_tokens")
    untied = make_tiny_llama(tie_word_embeddings=False)
    model = trained(new(untied, lora_target="q_proj,embed_tokens"))
    model.save_pretrained(str(tmp_path))
    loaded = load_adapter(make_tiny_llama(tie_word_embeddings=False), tmp_path)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-6)
    assert torch.allclose(logits(loaded.merge_and_unload()), logits(model), atol=1e-5)


def test_layers_are_not_taken_for_experts() -> None:
    """A list of four experts inside a layer is longer than the list of two layers."""
    model = make_tiny_llama()
    model.model.layers[0].experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(4))
    prefix, layers = layers_of(model)
    assert (prefix, len(layers)) == ("model.layers", 2)


# -- OFT -------------------------------------------------------------------------------------------------------------


def test_oft_counts_by_hand() -> None:
    """Blocks of 8 on 32 inputs: 4 rotations of 8 * 7 / 2 = 28 numbers each."""
    model = new(finetuning_type="oft", oft_block_size=8, oft_target="q_proj")
    assert count_parameters(model)[0] == 2 * 4 * 28
    model = new(finetuning_type="oft", oft_rank=2, oft_target="q_proj,down_proj")
    # two rotations of 16 x 16 on 32 inputs, of 32 x 32 on 64
    assert count_parameters(model)[0] == 2 * (2 * 16 * 15 // 2 + 2 * 32 * 31 // 2)


def test_oft_target_acts_and_lora_target_does_not() -> None:
    model = new(finetuning_type="oft", oft_target="v_proj", lora_target="q_proj", oft_block_size=8)
    assert adapted(model) == ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"]


def test_oft_starts_as_the_base_rotates_and_comes_back_live_and_merged(tmp_path: Path) -> None:
    base = logits(make_tiny_llama())
    model = new(finetuning_type="oft", oft_block_size=8)
    assert torch.allclose(logits(model), base, atol=1e-6)
    trained(model)
    expected = logits(model)
    assert (expected - base).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(load_adapter(make_tiny_llama(), tmp_path)), expected, atol=1e-6)
    assert torch.allclose(logits(merge_adapters(make_tiny_llama(), [tmp_path])), expected, atol=1e-5)


def test_module_dropout_acts_in_training_only() -> None:
    model = trained(new(finetuning_type="oft", oft_block_size=8, module_dropout=0.9), steps=3)
    assert torch.equal(logits(model), logits(model))
    model.train()
    with torch.no_grad():
        outputs = [model(input_ids=IDS).logits for _ in range(4)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"oft_block_size": 24}, r"oft_block_size: 24 does not divide the 32 inputs of model.layers.0.*16, 32\] do"),
        ({"oft_target": "q_prj"}, r"oft_target.*did you mean 'q_proj'"),
    ],
)
def test_oft_that_cannot_be_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        new(finetuning_type="oft", **keys)


def test_oft_has_no_rows_for_new_tokens() -> None:
    with pytest.raises(ModelError, match="new tokens"):
        apply_finetuning(make_tiny_llama(), config(finetuning_type="oft", oft_block_size=8), [440], torch.float32)


# -- adapters that are trained on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_rank": 2}, "lora_rank: 2, but the adapter .* has 4"),
        ({"lora_alpha": 3}, "lora_alpha: 3"),
        ({"use_dora": True}, "use_dora: True"),
        ({"lora_target": "q_proj"}, "lora_target: .* has other modules"),
        ({"finetuning_type": "oft"}, "is of type lora"),
    ],
)
def test_keys_that_an_adapter_cannot_obey_any_more_are_refused(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    new(lora_target="q_proj,v_proj").save_pretrained(tmp_path)
    settings = RunConfig.from_dict({"model_name_or_path": "tiny"} | keys)
    with pytest.raises(ModelError, match=message):
        apply_finetuning(make_tiny_llama(), settings, [], torch.float32, [tmp_path])
    same = config(lora_target="v_proj,q_proj", lora_alpha=8)
    assert count_parameters(apply_finetuning(make_tiny_llama(), same, [], torch.float32, [tmp_path]))[0] > 0


@pytest.mark.parametrize("kind", ["lora", "oft"])
def test_an_adapter_of_either_type_is_trained_on(tmp_path: Path, kind: str) -> None:
    keys = {"finetuning_type": kind} | ({"oft_block_size": 8} if kind == "oft" else {})
    model = trained(new(**keys))
    model.save_pretrained(tmp_path)
    again = apply_finetuning(make_tiny_llama(), config(**keys), [], torch.float32, [tmp_path])
    assert torch.allclose(logits(again), logits(model), atol=1e-6)
    assert count_parameters(again)[0] == count_parameters(model)[0]
    trained(again)
    assert not torch.equal(logits(again), logits(model))


# -- experts ---------------------------------------------------------------------------------------------------------


def test_routed_experts_are_trained_where_they_are_named(tmp_path: Path) -> None:
    model = new(make_tiny_mixtral(), lora_target="q_proj,experts")
    trained_names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum("experts" in name for name in trained_names) == 2 * 2 * 2  # layers, two weights, A and B
    trained(model)
    expected = logits(model)
    assert (expected - logits(make_tiny_mixtral())).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    live = load_adapter(make_tiny_mixtral(), tmp_path)
    assert torch.allclose(logits(live), expected, atol=1e-6)
    assert torch.allclose(logits(live.merge_and_unload()), expected, atol=1e-5)


def test_all_leaves_experts_frozen_and_one_weight_of_theirs_can_be_named() -> None:
    assert not [name for name in _trained_names(lora_target="all") if "experts" in name]
    named = [name for name in _trained_names(lora_target="experts.down_proj") if "experts" in name]
    assert len(named) == 2 * 2


def _trained_names(**keys: Any) -> list[str]:
    return [name for name, p in new(make_tiny_mixtral(), **keys).named_parameters() if p.requires_grad]


@pytest.mark.parametrize("keys", [{"lora_dropout": 0.1}, {"use_dora": True}, {"pissa_init": True}])
def test_what_expert_weights_cannot_have_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="routed experts"):
        new(make_tiny_mixtral(), lora_target="experts", **keys)
    with pytest.raises(ModelError, match="only lora"):
        new(make_tiny_mixtral(), finetuning_type="oft", oft_target="experts", oft_block_size=8)


def test_a_name_that_is_not_there_lists_the_experts() -> None:
    with pytest.raises(ModelError, match=r"routed experts.*experts\.gate_up_proj"):
        new(make_tiny_mixtral(), lora_target="w1")
