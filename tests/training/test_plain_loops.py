"""Stages against loops written independently: right-padded batches, all logits, a second model as reference.

Stage sft is in test_trainer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.training.stages import assert_same, make_stage_trainer, padded, plain_logps, random_rows, weights
from torch.nn import functional as F

from tunesmith.core.types import IGNORE_INDEX
from tunesmith.models.forward import base_model_of
from tunesmith.models.value_head import value_head_of

Items = list[dict[str, Any]]
Pair = tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]


def parts(item: dict[str, Any]) -> Pair:
    """Both sequences of an item."""
    cut, ids, labels = item["seconds"][0], list(item["input_ids"]), list(item["labels"])
    return (ids[:cut], labels[:cut]), (ids[cut:], labels[cut:])


def text_loss(model: Any, reference: Any, items: Items, rows: list[Any]) -> torch.Tensor:
    """The mean over all tokens of the step that have one before them."""
    ids, mask, labels = padded([(list(item["input_ids"]), list(item["labels"])) for item in items])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX)


def ranking_loss(model: Any, reference: Any, items: Items, rows: list[Any]) -> torch.Tensor:
    """-log sigma(chosen - rejected), the scores read at each answer's last token."""
    scores = []
    for side in (0, 1):
        ids, mask, _ = padded([parts(item)[side] for item in items])
        hidden = base_model_of(model).model(input_ids=ids, attention_mask=mask).last_hidden_state
        ends = hidden[torch.arange(len(items)), mask.sum(dim=1) - 1]
        scores.append(value_head_of(model)(ends))
    pair_weights = torch.tensor([row.weight for row in rows])
    return -(F.logsigmoid(scores[0] - scores[1]) * pair_weights).sum() / pair_weights.sum()


def pair_loss(model: Any, reference: Any, items: Items, rows: list[Any]) -> torch.Tensor:
    """DPO with beta 0.3 as two forward passes and a second model copy."""
    sides = [[parts(item)[side] for item in items] for side in (0, 1)]
    with torch.no_grad():
        before = [plain_logps(reference, side) for side in sides]
    chosen, rejected = (plain_logps(model, side) - then for side, then in zip(sides, before, strict=True))
    pair_weights = torch.tensor([row.weight for row in rows])
    return -(F.logsigmoid(0.3 * (chosen - rejected)) * pair_weights).sum() / pair_weights.sum()


def judged_loss(model: Any, reference: Any, items: Items, rows: list[Any]) -> torch.Tensor:
    """KTO with beta 0.3, bad answers at 0.7, and 0.2 of the usual loss of good ones."""
    own, mismatched = ([parts(item)[side] for item in items] for side in (0, 1))
    row_weights = torch.tensor([row.weight for row in rows])
    good = torch.tensor([row.is_desirable for row in rows])
    with torch.no_grad():
        before = plain_logps(reference, own)
        drift = plain_logps(model, mismatched) - plain_logps(reference, mismatched)
        kl = ((drift * row_weights).sum() / row_weights.sum()).clamp(min=0)
    logps = plain_logps(model, own)
    gain = torch.where(good, logps - before - kl, kl - logps + before)
    losses = torch.where(good, 1.0, 0.7) * (1 - torch.sigmoid(0.3 * gain))
    lengths = torch.tensor([sum(label != IGNORE_INDEX for label in labels[1:]) for _, labels in own])
    losses = losses - 0.2 * good * logps / lengths
    return (losses * row_weights).sum() / row_weights.sum()


LOOPS: dict[str, tuple[Callable[..., torch.Tensor], dict[str, Any]]] = {
    "pt": (text_loss, {}),
    "rm": (ranking_loss, {}),
    "dpo": (pair_loss, {"pref_beta": 0.3}),
    "kto": (judged_loss, {"pref_beta": 0.3, "kto_rejected_weight": 0.7, "pref_ftx": 0.2}),
}


@pytest.mark.parametrize("stage", LOOPS)
def test_two_steps_of_a_stage_are_those_of_a_plain_padded_loop(tmp_path: Path, stage: str) -> None:
    plain_loss, own = LOOPS[stage]
    rows: Any = random_rows(stage, 16)
    keys = {"stage": stage, "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "max_steps": 2}
    keys |= {"per_device_train_batch_size": 4, "disable_shuffling": True} | own
    trainer = make_stage_trainer(tmp_path, rows, **keys)
    plain = make_stage_trainer(tmp_path, rows, **keys).model
    trainer.train()
    plain.get_base_model().set_attn_implementation("eager")
    reference = make_tiny_llama(attn_implementation="eager").eval()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(2):
        places = range(4 * step, 4 * step + 4)
        loss = plain_loss(plain, reference, [rows[place] for place in places], [rows.rows[place] for place in places])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, rel=1e-4)
    assert_same(weights(trainer), {n: p for n, p in plain.named_parameters() if p.requires_grad}, atol=1e-5)
