"""Rows end to end give what each row gives alone, for every kind of attention that models ask for."""

from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.core.errors import ModelError
from tunesmith.models import attention
from tunesmith.models.attention import varlen_attention, varlen_eager_attention
from tunesmith.models.forward import HiddenForward, MicroBatch


class _Layer(torch.nn.Module):
    is_causal = True


def _reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, cap: float | None
) -> torch.Tensor:
    """One row, scores written out in the plainest way; q (H, L, D), k and v (Hkv, L, D)."""
    groups = q.shape[0] // k.shape[0]
    out = torch.zeros_like(q)
    for head in range(q.shape[0]):
        for i in range(q.shape[1]):
            scores = []
            first = 0 if window is None else max(0, i - window + 1)
            for j in range(first, i + 1):
                score = (q[head, i] @ k[head // groups, j]) * 0.25
                scores.append(torch.tanh(score / cap) * cap if cap else score)
            weights = torch.stack(scores).softmax(0)
            out[head, i] = (weights[:, None] * v[head // groups, first : i + 1]).sum(0)
    return out


@pytest.mark.parametrize("function", [varlen_attention, varlen_eager_attention])
@pytest.mark.parametrize(("window", "cap"), [(None, None), (3, None), (None, 5.0), (2, 1.5)])
def test_each_row_is_attended_as_if_alone(function: Any, window: int | None, cap: float | None) -> None:
    torch.manual_seed(0)
    lengths = (5, 1, 4)
    q, k, v = torch.randn(1, 4, 10, 8), torch.randn(1, 2, 10, 8), torch.randn(1, 2, 10, 8)
    got, _ = function(
        _Layer(), q, k, v, None, scaling=0.25, row_lengths=lengths, sliding_window=window, softcap=cap, dropout=0.0
    )
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        expected = _reference(q[0, :, rows], k[0, :, rows], v[0, :, rows], window, cap)
        assert torch.allclose(got[0, rows].transpose(0, 1), expected, atol=1e-5)
        start += length


def test_sinks_take_their_share_of_the_softmax() -> None:
    """One token, score 0, sink 0: the softmax gives the token one half."""
    q = torch.zeros(1, 1, 1, 2)
    v = torch.tensor([[[[4.0, 8.0]]]])
    got, _ = varlen_attention(_Layer(), q, q, v, None, scaling=1.0, s_aux=torch.zeros(1))
    assert torch.allclose(got[0, 0, 0], torch.tensor([2.0, 4.0]))


def test_a_mask_is_refused_not_ignored() -> None:
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(AssertionError, match="mask"):
        varlen_attention(_Layer(), q, q, q, torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("flash_attn", ["auto", "disabled"])
def test_a_llama_gives_each_row_the_logits_it_has_alone(flash_attn: str) -> None:
    attention.register()
    plain = make_tiny_llama().eval()
    ours = make_tiny_llama(attn_implementation=attention.training_implementation(flash_attn)).eval()
    ours.load_state_dict(plain.state_dict())
    forward = HiddenForward(ours)
    assert forward.is_plain_head
    assert forward.lays_rows_end_to_end
    rows = [torch.randint(3, 400, (length,)) for length in (7, 1, 12)]
    batch = MicroBatch(
        torch.cat(rows),
        torch.cat([torch.arange(len(row)) for row in rows]),
        (7, 1, 12),
        torch.arange(20),
        torch.zeros(20, dtype=torch.long),
    )
    with torch.no_grad():
        got = forward.head(forward(ours, batch))
        expected = torch.cat([plain(row[None]).logits[0] for row in rows])
    assert torch.allclose(got, expected, atol=1e-5)
    assert "forward" not in vars(ours.lm_head)


@pytest.mark.parametrize(("flash_attn", "package"), [("fa2", "flash_attn"), ("fa3", "flash_attn_interface")])
def test_kernels_that_are_missing_are_refused_with_the_way_round(
    flash_attn: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "is_installed", lambda name: name != package)
    for choose in (attention.training_implementation, attention.inference_implementation):
        with pytest.raises(
            ModelError, match=f"flash_attn: {flash_attn} needs the package '{package}'.*flash_attn: auto"
        ):
            choose(flash_attn)


@pytest.mark.gpu
@pytest.mark.parametrize("flash_attn", ["fa2", "fa3"])
def test_kernels_of_flash_attention_give_each_row_the_logits_it_has_alone(flash_attn: str) -> None:
    pytest.importorskip("flash_attn" if flash_attn == "fa2" else "flash_attn_interface")
    ours: Any = make_tiny_llama(attn_implementation=attention.training_implementation(flash_attn))
    ours = ours.cuda().bfloat16().eval()
    rows = [torch.randint(3, 400, (length,)) for length in (7, 1, 12)]
    places = torch.cat([torch.arange(len(row)) for row in rows])
    targets = torch.zeros(20, dtype=torch.long)
    parts = [part.cuda() for part in (torch.cat(rows), places, torch.arange(20), targets)]
    batch = MicroBatch(parts[0], parts[1], (7, 1, 12), parts[2], parts[3])
    forward = HiddenForward(ours)
    with torch.no_grad():
        got = forward.head(forward(ours, batch))
        expected = torch.cat([ours(row[None].cuda()).logits[0] for row in rows])
    assert torch.allclose(got, expected, atol=0.05)


def test_logits_that_are_scaled_after_the_head_are_noticed() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    attention.register()
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=3,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=5.0,
    )
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config)
    model.lm_head.weight.data.mul_(50)
    eager = Gemma2ForCausalLM._from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    ours = Gemma2ForCausalLM._from_config(config, attn_implementation=attention.VARLEN).eval()
    ours.load_state_dict(model.state_dict())
    forward = HiddenForward(ours)
    assert not forward.is_plain_head
    rows = [torch.randint(3, 60, (length,)) for length in (6, 9)]
    batch = MicroBatch(
        torch.cat(rows), torch.cat([torch.arange(6), torch.arange(9)]), (6, 9), torch.arange(15), torch.zeros(15).long()
    )
    with torch.no_grad():
        got = forward.head(forward(ours, batch))
        expected = torch.cat([eager(row[None]).logits[0] for row in rows])
    assert torch.allclose(got, expected, atol=1e-5)
