"""A shared beginning read once gives what two readings give: in attention, in whole models, in gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.core.types import IGNORE_INDEX
from tunesmith.models import attention
from tunesmith.models.forward import HiddenForward
from tunesmith.training.batches import Row, StepRows, common_beginning, lay_end_to_end, micro_batches

NOT = IGNORE_INDEX


def pair(prompt: list[int], chosen: list[int], rejected: list[int], number: int = 0) -> Row:
    masked = [NOT] * len(prompt)
    ids = [*prompt, *chosen, *prompt, *rejected]
    labels = [*masked, *chosen, *masked, *rejected]
    return Row(ids, labels, number, second=len(prompt) + len(chosen))


def test_a_pair_laid_behind_its_prompt_by_hand() -> None:
    """Prompt 1 2, answers 5 6 and 7: one line 1 2 5 6 7. The prompt's last token predicts the first of both answers."""
    batch = lay_end_to_end([pair([1, 2], [5, 6], [7])], shares=True)
    assert batch.input_ids.tolist() == [1, 2, 5, 6, 7]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2]
    assert batch.forks == ((2, 2, 1),)
    assert (batch.row_lengths, batch.n_sequences) == ((5,), 2)
    assert batch.targets.tolist() == [5, 6, 7]
    assert batch.positions.tolist() == [1, 2, 1]
    assert batch.sequence_of is not None
    assert batch.sequence_of.tolist() == [0, 0, 1]
    ends = lay_end_to_end([pair([1, 2], [5, 6], [7])], "ends", shares=True)
    assert ends.positions.tolist() == [3, 4]
    assert ends.targets.tolist() == [6, 7]


def test_answers_that_begin_alike_are_not_shared_where_they_are_trained() -> None:
    one, other = pair([1, 2], [5, 6], [5, 9]).sequences
    assert common_beginning(one, other) == 2
    same = pair([1, 2, 3], [4], [4]).sequences
    assert common_beginning(*same) == 3
    assert lay_end_to_end([pair([1], [5], [6]), pair([], [5, 6], [7, 8])], shares=True).forks == ((1, 1, 1), (), ())
    assert lay_end_to_end([pair([], [5, 6], [7, 8])], shares=True).forks is None


def test_a_budget_counts_a_shared_prompt_once() -> None:
    step = StepRows([pair([1] * 10, [2], [3], number) for number in range(4)])
    assert [len(batch.input_ids) for batch in micro_batches(step, 24)] == [22, 22, 22, 22]
    assert [len(batch.input_ids) for batch in micro_batches(step, 24, shares=True)] == [24, 24]


class _Layer(torch.nn.Module):
    is_causal = True


@pytest.mark.parametrize("window", [None, 3, 7])
@pytest.mark.parametrize("extra", [{}, {"softcap": 2.0}, {"explicit": True}, {"sinks": True}])
def test_attention_of_a_fork_is_that_of_its_sequences(window: int | None, extra: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"scaling": 0.5, "sliding_window": window, **extra}
    if options.pop("sinks", False):
        options["s_aux"] = torch.randn(4)
    head, branches, beside = 5, (4, 3, 2), 3
    total = head + sum(branches) + beside
    q, k, v = torch.randn(1, 4, total, 8), torch.randn(1, 2, total, 8), torch.randn(1, 2, total, 8)

    def attend(*tensors: torch.Tensor, **more: Any) -> torch.Tensor:
        return attention.varlen_attention(_Layer(), *tensors, None, **options, **more)[0]

    forked = attend(q, k, v, row_lengths=(head + sum(branches), beside), row_forks=((head, *branches), ()))
    start = head
    for length in branches:
        places = [*range(head), *range(start, start + length)]
        alone = attend(*(tensor[:, :, places] for tensor in (q, k, v)), row_lengths=(len(places),))
        assert torch.allclose(forked[:, places[head:]], alone[:, head:], atol=1e-6)
        start += length
    alone = attend(*(tensor[:, :, -beside:] for tensor in (q, k, v)), row_lengths=(beside,))
    assert torch.allclose(forked[:, -beside:], alone, atol=1e-6)


def tiny(kind: str) -> Any:
    """A random model of another family."""
    from transformers import AutoModelForCausalLM, Gemma2Config, Lfm2Config, MistralConfig, Qwen3Config

    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    configs = {
        "mistral": lambda: MistralConfig(**shape, sliding_window=4),
        "gemma2": lambda: Gemma2Config(**shape, sliding_window=4, query_pre_attn_scalar=8),
        "qwen3": lambda: Qwen3Config(**shape),
        "lfm2": lambda: Lfm2Config(**shape, layer_types=["conv", "full_attention"], conv_L_cache=3),
    }
    attention.register()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configs[kind](), attn_implementation=attention.VARLEN)


@pytest.mark.parametrize(("kind", "can"), [("mistral", True), ("gemma2", True), ("qwen3", True), ("lfm2", False)])
def test_what_may_share_is_found_by_numbers(kind: str, can: bool) -> None:
    model = tiny(kind)
    forward = HiddenForward(model, reads_hidden=True)
    assert forward.can_share(model) is can
    assert forward.lays_rows_end_to_end is can, "a convolution reaches into the row before"


def test_a_model_with_a_state_reads_sequences_one_by_one() -> None:
    model = tiny("lfm2").eval()
    forward = HiddenForward(model, reads_hidden=True)
    batch = lay_end_to_end([pair([3, 4, 5], [8, 9], [11], 0), pair([13], [15], [16, 17], 1)])
    with torch.no_grad():
        together = forward(model, batch)
        alone = [forward(model, one) for one in batch.apart()]
    assert together.shape[0] == 2 + 1 + 1 + 2
    assert torch.equal(together, torch.cat(alone))
    assert not forward.lays_rows_end_to_end


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("reads", ["targets", "ends"])
def test_hidden_states_and_gradients_are_those_of_two_readings(kind: str, reads: str) -> None:
    attention.register()
    model: Any = make_tiny_llama(attn_implementation=attention.VARLEN) if kind == "llama" else tiny(kind)
    forward = HiddenForward(model, reads_hidden=True)
    rows = [pair([3, 4, 5, 6, 7], [8, 9, 10], [11, 12], 0), pair([13, 14], [15], [16, 17, 18, 19, 20, 21], 1)]
    found = []
    for shares in (False, True):
        batch = lay_end_to_end(rows, reads, shares=shares)
        assert (batch.forks is not None) == shares
        hidden = forward(model, batch)
        model.zero_grad()
        coefficients = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
        (hidden * coefficients).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((hidden.detach(), gradients))
    (plain, plain_gradients), (shared, shared_gradients) = found
    assert torch.allclose(plain, shared, atol=1e-5)
    assert plain_gradients.keys() == shared_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert torch.allclose(gradient, shared_gradients[name], atol=1e-4, rtol=1e-4), name
