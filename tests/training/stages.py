"""Tiny trainers of every stage, and random rows of every kind, for the tests beside this file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import RunConfig
from tunesmith.core.lazy import lookup
from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow
from tunesmith.data.flat import pack_arrays
from tunesmith.data.mismatch import JudgedRows
from tunesmith.data.rows import TrainRows
from tunesmith.data.texts import TextRows
from tunesmith.models import attention
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.forward import HiddenForward
from tunesmith.models.value_head import attach_value_head
from tunesmith.objectives.base import OBJECTIVES, objective_name
from tunesmith.training.arguments import training_arguments
from tunesmith.training.kept_reference import keep_reference
from tunesmith.training.reference import BaseReference, ModelReference, Reference, is_kept
from tunesmith.training.trainer import StepTrainer

CASES: dict[str, dict[str, Any]] = {
    "pt": {"stage": "pt"},
    "dft": {"stage": "sft", "use_dft_loss": True},
    "asft": {"stage": "sft", "use_asft_loss": True},
    "eaft": {"stage": "sft", "use_eaft_loss": True, "label_smoothing_factor": 0.1},
    "rm": {"stage": "rm"},
    "dpo": {"stage": "dpo", "pref_ftx": 0.2, "ld_alpha": 0.5},
    "hinge": {"stage": "dpo", "pref_loss": "hinge"},
    "ipo": {"stage": "dpo", "pref_loss": "ipo"},
    "kto_pair": {"stage": "dpo", "pref_loss": "kto_pair", "pref_bco_weight": 0.5},
    "orpo": {"stage": "dpo", "pref_loss": "orpo"},
    "simpo": {"stage": "dpo", "pref_loss": "simpo"},
    "kto": {"stage": "kto", "pref_ftx": 0.2, "kto_rejected_weight": 0.7},
}
"""Name -> keys."""


def random_rows(stage: str, count: int, seed: int = 3) -> TrainRows:
    """Rows of random tokens as the pipeline makes them of a stage's examples."""
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(3, 400) for _ in range(rng.randrange(least, most))]

    rows = []
    for number in range(count):
        source = Source("rows", number + 1)
        prompt, answers = tokens(2, 9), [tokens(1, 13), tokens(1, 13)]
        masked = [IGNORE_INDEX] * len(prompt)
        first = (prompt + answers[0], masked + answers[0])
        weight = rng.choice([1.0, 1.0, 0.5])
        if stage in ("dpo", "rm"):
            second = (prompt + answers[1], masked + answers[1])
            ids, labels = (one + other for one, other in zip(first, second, strict=True))
            rows.append(TokenizedRow(ids, labels, source, second=len(first[0]), weight=weight))
        elif stage == "pt":
            rows.append(TokenizedRow(first[0], list(first[0]), source))
        else:
            rows.append(TokenizedRow(*first, source, is_desirable=rng.random() < 0.5, weight=weight))
    table = pack_arrays(rows)
    if stage == "pt":
        return TextRows(table, 16, None, is_packed=True)
    return JudgedRows(table, 24) if stage == "kto" else TrainRows(table)


def make_stage_trainer(folder: Path, rows: Any, budget: int = 512, eval_rows: Any = None, **keys: Any) -> StepTrainer:
    """A trainer on a tiny random model, put together as the recipe does it."""
    settings: dict[str, Any] = {
        "model_name_or_path": "tiny",
        "output_dir": str(folder),
        "do_train": True,
        "dataset": "x",
        "learning_rate": 1e-2,
        "lora_rank": 4,
        "max_steps": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
    }
    callbacks = keys.pop("callbacks", None)
    config = RunConfig.from_dict(settings | keys)
    attention.register()
    base: Any = make_tiny_llama(attn_implementation=attention.VARLEN)
    torch.manual_seed(1)
    model: Any = apply_finetuning(base, config, [], torch.float32)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero by default, which would hide errors in lora_A's gradient at step 1
            torch.nn.init.normal_(parameter, std=0.02)
    objective = lookup(OBJECTIVES, objective_name(config.stage, config.pref_loss)).build(config)
    if objective.needs_value_head:
        attach_value_head(model, [])
    forward = HiddenForward(model, reads_hidden=objective.needs_value_head)
    reference: Reference | None = None
    if objective.reference != "none":
        frozen: Any = make_tiny_llama(attn_implementation=attention.VARLEN).eval().requires_grad_(False)
        reference = BaseReference(forward) if config.finetuning_type == "lora" else ModelReference(frozen)
    trainer = StepTrainer(
        objective=objective,
        forward=forward,
        token_budget=budget,
        reference=reference,
        model=model,
        args=training_arguments(config, autocast=None),
        train_dataset=rows,
        eval_dataset=eval_rows,
        callbacks=callbacks,
    )
    if is_kept(config, objective):
        keep_reference(trainer)
    return trainer


def weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    """Trained weights, copied."""
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float) -> None:
    """Same names, and numbers within `atol`."""
    assert left.keys() == right.keys()
    assert left
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=atol, rtol=0), (name, (value - right[name]).abs().max())


def padded(sequences: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels of (ids, labels) as one right-padded batch, (B, T) each."""
    width = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in sequences])
    labels = torch.tensor([labels + [IGNORE_INDEX] * (width - len(labels)) for _, labels in sequences])
    return ids, mask, labels


def plain_logps(model: Any, sequences: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """(B,) sums of log-probabilities of the trained tokens, as textbooks write it: padded, with all logits."""
    ids, mask, labels = padded(sequences)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    found = logits.log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[..., None]).squeeze(-1)
    return (found * (labels[:, 1:] != IGNORE_INDEX)).sum(dim=1)
