"""Noise on embeddings, shifted sparse attention, balance of experts: by hand, and against transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.tiny import make_tiny_mixtral, make_tiny_qwen2_moe
from transformers.integrations.neftune import neftune_post_forward_hook
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models import attention
from tunesmith.models.aids import Aids
from tunesmith.models.attention import varlen_attention
from tunesmith.models.balance import balance_of_rows
from tunesmith.models.forward import HiddenForward, MicroBatch
from tunesmith.models.noise import EmbeddingNoise


def line_of(*lengths: int, seed: int = 0) -> MicroBatch:
    """Rows of random tokens; every token predicts."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    ids = torch.randint(3, 400, (total,), generator=generator)
    places = torch.cat([torch.arange(length) for length in lengths])
    return MicroBatch(ids, places, lengths, torch.arange(total), ids.roll(-1))


# -- noise -----------------------------------------------------------------------------------------------------------


def test_each_row_gets_noise_by_its_own_length() -> None:
    """alpha / sqrt(L d): 5 / sqrt(4 * 8) = 0.8839 for 4 tokens, 5 / sqrt(64 * 8) = 0.2210 for 64."""
    embedding = torch.nn.Embedding(10, 8).train()
    noise = EmbeddingNoise(embedding, 5.0)
    noise.row_lengths = (4, 64)
    ids = torch.zeros(1, 68, dtype=torch.long)
    torch.manual_seed(0)
    added = torch.cat([(embedding(ids) - embedding.weight[0]).detach() for _ in range(20)])
    short, long = added[:, :4].abs(), added[:, 4:].abs()
    assert 0.8 < short.max() <= 5 / math.sqrt(4 * 8)
    assert 0.2 < long.max() <= 5 / math.sqrt(64 * 8)
    assert added.mean().abs() < 0.01
    embedding.eval()
    assert torch.equal(embedding(ids)[0, 0], embedding.weight[0])


def test_a_row_alone_gets_the_noise_of_transformers() -> None:
    ours, theirs = torch.nn.Embedding(50, 8), torch.nn.Embedding(50, 8)
    theirs.load_state_dict(ours.state_dict())
    noise = EmbeddingNoise(ours, 5.0)
    noise.row_lengths = (7,)
    theirs.neftune_noise_alpha = 5.0
    theirs.register_forward_hook(neftune_post_forward_hook)
    ids = torch.arange(7)[None]
    outputs = []
    for embedding in (ours, theirs):
        torch.manual_seed(3)
        outputs.append(embedding(ids))
    assert torch.allclose(*outputs, atol=1e-6)


def test_noise_acts_through_the_models_forward_in_training_only() -> None:
    model = make_tiny_llama()
    plain = HiddenForward(model)
    noisy = HiddenForward(model, Aids(noise_alpha=5.0))
    batch = line_of(6, 9)
    with torch.no_grad():
        assert torch.equal(noisy(model.eval(), batch), plain(model, batch))
        model.train()
        assert not torch.equal(noisy(model, batch), noisy(model, batch))


# -- shifted sparse attention ----------------------------------------------------------------------------------------


def by_mask(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, size: int) -> torch.Tensor:
    """One row, (H, L, D): head h of the first half sees token j from i if both are in the same group of `size`; the
    second half counts groups from half a group on."""
    heads, length, width = q.shape
    places = torch.arange(length)
    out = []
    for head in range(heads):
        offset = 0 if head < heads // 2 else size // 2
        group = (places - offset) // size  # -1: the half group before the first whole one
        sees = (group[:, None] == group[None, :]) & (places[:, None] >= places[None, :])
        scores = (q[head] @ k[head].T / math.sqrt(width)).masked_fill(~sees, float("-inf"))
        out.append(scores.softmax(-1) @ v[head])
    return torch.stack(out)


class _Layer(torch.nn.Module):
    is_causal = True


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_groups_are_those_of_the_mask_written_out(kv_heads: int, explicit: bool) -> None:
    torch.manual_seed(0)
    lengths, size = (3, 1, 13, 8), 4
    total = sum(lengths)
    q, k, v = (torch.randn(1, heads, total, 8) for heads in (4, kv_heads, kv_heads))
    got, _ = varlen_attention(
        _Layer(), q, k, v, None, row_lengths=lengths, group_tokens=size, explicit=explicit, scaling=8**-0.5
    )
    wide = [q[0], *(t[0].repeat_interleave(4 // kv_heads, dim=0) for t in (k, v))]
    rows = [by_mask(*parts, size) for parts in zip(*(t.split(lengths, 1) for t in wide), strict=True)]
    expected = torch.cat(rows, dim=1).transpose(0, 1)[None]
    assert torch.allclose(got, expected, atol=1e-6)


def test_groups_as_long_as_a_row_leave_the_first_half_of_the_heads_as_it_is() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 8, 4)
    whole, _ = varlen_attention(_Layer(), q, q, q, None)
    shifted, _ = varlen_attention(_Layer(), q, q, q, None, group_tokens=8)
    assert torch.allclose(shifted[:, :, 0], whole[:, :, 0], atol=1e-6)
    assert not torch.allclose(shifted[:, 4:, 1], whole[:, 4:, 1], atol=1e-3)


def test_shifted_attention_acts_in_training_only_and_by_cutoff_len() -> None:
    aids = Aids.of(RunConfig.from_dict({"model_name_or_path": "m", "shift_attn": True, "cutoff_len": 32}))
    assert aids.group_tokens == 8
    attention.register()
    model = make_tiny_llama(attn_implementation=attention.VARLEN)
    whole, shifted = HiddenForward(model), HiddenForward(model, aids)
    batch = line_of(20, 5)
    with torch.no_grad():
        assert torch.equal(shifted(model.eval(), batch), whole(model, batch))
        differ = (shifted(model.train(), batch) - whole(model, batch)).abs().amax(-1) > 1e-6
    assert not differ[:4].any()  # up to half a group both halves see all before them
    assert differ[8:20].all()
    assert not differ[20:24].any()


def test_models_that_do_not_run_through_our_attention_are_refused() -> None:
    with pytest.raises(ModelError, match="shift_attn"):
        HiddenForward(make_tiny_llama(attn_implementation="eager"), Aids(group_tokens=8))


# -- balance of experts ----------------------------------------------------------------------------------------------


def test_balance_by_hand() -> None:
    """Two experts, each token meets one. Row 1: logits (0, 0) and (ln 3, 0): probabilities (1/2, 1/2) and (3/4, 1/4),
    both go to expert 0 (the first of equals): f = (1, 0), P = (5/8, 3/8), 2 * 5/8 = 1.25. Row 2, one token with
    (0, ln 3): f = (0, 1), P = (1/4, 3/4), 2 * 3/4 = 1.5."""
    ln3 = math.log(3)
    logits = torch.tensor([[0.0, 0.0], [ln3, 0.0], [0.0, ln3]])
    assert torch.allclose(balance_of_rows([logits], 1, (2, 1)), torch.tensor([1.25, 1.5]))


@pytest.mark.parametrize("make", [make_tiny_mixtral, make_tiny_qwen2_moe])
def test_each_row_has_the_loss_that_transformers_computes_for_it_alone(make: Any) -> None:
    attention.register()
    model = make(attn_implementation=attention.VARLEN)
    forward = HiddenForward(model, Aids(balance=0.1))
    batch = line_of(7, 12, 3)
    forward(model.train(), batch)
    weight, ours = forward.take_extra()["balance_loss"]
    assert weight == 0.1
    for row, value in zip(batch.input_ids.split((7, 12, 3)), ours, strict=True):
        output = model(input_ids=row[None], output_router_logits=True)
        assert torch.allclose(value, output.aux_loss, atol=1e-6)
        assert torch.allclose(value, load_balancing_loss_func(output.router_logits, 4, 2), atol=1e-6)
    assert forward.take_extra() == {}
    forward(model.eval(), batch)
    assert forward.take_extra() == {}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_its_gradient_is_that_of_transformers(checkpointing: bool) -> None:
    attention.register()
    batch = line_of(9)
    grads = []
    for theirs in (False, True):
        model = make_tiny_mixtral(attn_implementation=attention.VARLEN).train()
        if checkpointing and not theirs:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if theirs:
            loss = model(input_ids=batch.input_ids[None], output_router_logits=True, use_cache=False).aux_loss
        else:
            forward = HiddenForward(model, Aids(balance=0.1))
            forward(model, batch)
            loss = forward.take_extra()["balance_loss"][1].sum()
        loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert any("gate" in name for name in grads[0])
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-7) for name in grads[0])


def test_models_without_routed_experts_are_refused() -> None:
    with pytest.raises(ModelError, match=r"moe_aux_loss_coef: llama models have no routed experts"):
        HiddenForward(make_tiny_llama(), Aids(balance=0.1))


def test_what_a_sequence_counts() -> None:
    batch = MicroBatch(
        torch.zeros(9).long(), torch.zeros(9).long(), (4, 5), torch.tensor([1, 3, 4]), torch.zeros(3).long()
    )
    assert batch.items_of_sequences("token").tolist() == [2, 1]
    rows = {"weight": torch.tensor([3.0])}
    pair = MicroBatch(batch.input_ids, batch.position_ids, (4, 5), batch.positions, batch.targets, per_row=rows)
    assert pair.items_of_sequences("row").tolist() == [1.5, 1.5]
