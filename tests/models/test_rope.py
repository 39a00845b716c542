"""Stretched rotary positions: the right frequencies, refused where there is nothing to stretch, loaded as trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.test_aids import line_of
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models import attention, rope
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.forward import HiddenForward
from tunesmith.models.live_adapter import load_live_adapter

OLD = 256


def config(command: str = "train", **keys: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "tiny", "cutoff_len": 700} | keys, command)


def stretched(kind: str, command: str = "train", **keys: Any) -> Any:
    """The tiny Llama on stretched positions, with the weights of the plain one."""
    attention.register()
    plain = make_tiny_llama()
    rope.settle(config(command, rope_scaling=kind, **keys), plain.config, [])
    model = LlamaForCausalLM._from_config(plain.config, attn_implementation=attention.VARLEN)
    model.load_state_dict(plain.state_dict())
    rope.forget_lengths(model)
    return model


def frequencies(model: Any) -> torch.Tensor:
    return model.model.rotary_emb.inv_freq


def test_linear_divides_all_frequencies_by_the_factor() -> None:
    """700 tokens over 256 positions: the next whole factor is 3."""
    model = stretched("linear")
    assert torch.allclose(frequencies(model), frequencies(make_tiny_llama()) / 3)
    assert model.config.max_position_embeddings == 3 * OLD


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_high_frequencies_stay_and_low_ones_are_divided(kind: str) -> None:
    plain, ours = (frequencies(model) for model in (make_tiny_llama(), stretched(kind)))
    assert torch.allclose(ours[0], plain[0])
    assert torch.allclose(ours[-1], plain[-1] / 3)
    parameters = stretched(kind).config.rope_parameters
    assert parameters["original_max_position_embeddings"] == OLD
    assert parameters["factor"] == 3.0
    if kind == "llama3":
        assert (parameters["low_freq_factor"], parameters["high_freq_factor"]) == (1.0, 4.0)


@torch.no_grad()
def test_dynamic_leaves_short_rows_alone_and_forgets_long_ones() -> None:
    """transformers keeps the frequencies of the longest row it ever saw, and takes one set for a whole line."""
    model, plain = stretched("dynamic").eval(), make_tiny_llama(attn_implementation=attention.VARLEN).eval()
    assert rope.context_of(model.config) == 3 * OLD
    forward, base = HiddenForward(model), HiddenForward(plain)
    short, middle = line_of(20), line_of(300)
    alone = forward(model, middle)
    assert torch.equal(forward(model, short), base(plain, short))
    assert not torch.allclose(alone, base(plain, middle), atol=1e-4)
    forward(model, line_of(600))
    assert torch.equal(forward(model, middle), alone)
    assert torch.equal(forward(model, short), base(plain, short))
    assert not forward.lays_rows_end_to_end


def test_each_row_of_a_line_counts_its_own_positions() -> None:
    model = stretched("yarn").eval()
    forward = HiddenForward(model)
    rows = line_of(300, 20)
    with torch.no_grad():
        together = forward(model, rows)
        apart = torch.cat([forward(model, row) for row in rows.apart()])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cutoff_len": 256}, "has nothing to stretch: cutoff_len 256 is within the 256 positions"),
        ({"cutoff_len": 2}, "has nothing to stretch"),
    ],
)
def test_nothing_to_stretch_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        stretched("yarn", **keys)


def test_positions_are_not_stretched_twice() -> None:
    once = stretched("yarn").config
    assert not rope.settle(config(rope_scaling="yarn"), once, [])  # as the first training left it
    assert once.max_position_embeddings == 3 * OLD
    with pytest.raises(ModelError, match="stretched by yarn already"):
        rope.settle(config(rope_scaling="linear"), once, [])
    with pytest.raises(ModelError, match="stretched by yarn already"):
        rope.settle(config("chat", rope_scaling="linear"), once, [])


def test_models_without_rotary_positions_are_refused() -> None:
    learned = GPT2Config(n_positions=64, n_embd=16, n_layer=1, n_head=2, vocab_size=50)
    with pytest.raises(ModelError, match="gpt2 models have no rotary positions"):
        rope.settle(config(rope_scaling="yarn"), learned, [])
    with pytest.raises(ModelError, match="the longest row has 65 tokens, this model has 64 positions"):
        rope.check_length(GPT2LMHeadModel(learned).config, 65)


def test_a_base_model_is_stretched_twofold_for_answering() -> None:
    model = stretched("linear", "chat")
    assert torch.allclose(frequencies(model), frequencies(make_tiny_llama()) / 2)


def test_sliding_layers_keep_their_positions() -> None:
    from transformers import Gemma3TextConfig

    gemma = Gemma3TextConfig(num_hidden_layers=2, max_position_embeddings=OLD)
    before = dict(gemma.rope_parameters["sliding_attention"])
    rope.settle(config(rope_scaling="linear"), gemma, [])
    assert gemma.rope_parameters["sliding_attention"] == before
    assert gemma.rope_parameters["full_attention"]["factor"] == 3.0


def test_adapters_bring_the_positions_they_were_trained_on(tmp_path: Path) -> None:
    model = stretched("yarn")
    rope.write_beside(tmp_path, model.config)
    fresh = LlamaConfig(**make_tiny_llama().config.to_dict())
    assert rope.settle(config("chat"), fresh, [tmp_path])
    assert fresh.rope_parameters == model.config.rope_parameters
    assert fresh.max_position_embeddings == 3 * OLD
    assert rope.settle(config("chat", rope_scaling="yarn"), fresh, [tmp_path])
    with pytest.raises(ModelError, match="stretched by yarn already"):
        rope.settle(config("chat", rope_scaling="linear"), fresh, [tmp_path])
    with pytest.raises(ModelError, match="trained for 768 positions, cutoff_len is 4000"):
        rope.settle(config(rope_scaling="yarn", cutoff_len=4000), fresh, [tmp_path])
    (tmp_path / "plain").mkdir()
    with pytest.raises(ModelError, match="differently stretched"):
        rope.settle(config("chat"), fresh, [tmp_path, tmp_path / "plain"])
    (tmp_path / rope.ROPE_FILE).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        rope.settle(config("chat"), fresh, [tmp_path])


def test_rows_beyond_the_positions_are_named(caplog: pytest.LogCaptureFixture) -> None:
    plain = make_tiny_llama().config
    with caplog.at_level(logging.WARNING):
        rope.check_length(plain, OLD)
        assert not caplog.records
        rope.check_length(plain, OLD + 1)
    assert "257 tokens" in caplog.text
    assert "set rope_scaling" in caplog.text


def test_an_adapter_of_stretched_positions_is_not_put_beside_others_on_a_plain_base(tmp_path: Path) -> None:
    model = apply_finetuning(make_tiny_llama(), config(), [], torch.float32)
    model.save_pretrained(tmp_path)
    assert load_live_adapter("a", tmp_path, make_tiny_llama(), 1).modules
    long = stretched("yarn")
    rope.write_beside(tmp_path, long.config)
    with pytest.raises(ModelError, match="stretched positions"):
        load_live_adapter("a", tmp_path, make_tiny_llama(), 1)
    assert load_live_adapter("a", tmp_path, long, 1).modules
