"""The trainer's promises, on weights: the cut changes nothing, resume is exact, evaluation leaves no trace."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from transformers import TrainerCallback

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TrainingError
from tunesmith.models import attention
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.aids import Aids
from tunesmith.models.forward import HiddenForward
from tunesmith.objectives.sft import SupervisedObjective
from tunesmith.training.arguments import training_arguments
from tunesmith.training.callbacks import EarlyStop, StopOnSignal
from tunesmith.training.checkpoints import list_checkpoints
from tunesmith.training.trainer import StepTrainer


class Rows:
    """Random rows of random lengths, packed or not."""

    def __init__(self, count: int, pack: int = 1, seed: int = 3) -> None:
        rng = random.Random(seed)
        self.items: list[dict[str, Any]] = []
        rows = []
        for _ in range(count):
            ids = [rng.randrange(3, 400) for _ in range(rng.randrange(4, 24))]
            cut = rng.randrange(1, len(ids) - 1)
            rows.append((ids, [-100] * cut + ids[cut:]))
        for start in range(0, count, pack):
            group = rows[start : start + pack]
            self.items.append(
                {
                    "input_ids": [token for ids, _ in group for token in ids],
                    "labels": [label for _, labels in group for label in labels],
                    "lengths": [len(ids) for ids, _ in group],
                    "rows": list(range(start, start + len(group))),
                }
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def make_trainer(folder: Path, rows: Any, budget: int = 512, eval_rows: Any = None, **keys: Any) -> StepTrainer:
    settings: dict[str, Any] = {
        "model_name_or_path": "tiny",
        "output_dir": str(folder),
        "do_train": True,
        "dataset": "x",
        "learning_rate": 1e-2,
        "lora_rank": 4,
        "max_steps": 6,
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
    }
    extra = {name: keys.pop(name) for name in ("callbacks",) if name in keys}
    make_model = keys.pop("make_model", make_tiny_llama)
    config = RunConfig.from_dict(settings | keys)
    attention.register()
    model = make_model(attn_implementation=attention.VARLEN)
    torch.manual_seed(1)
    model = apply_finetuning(model, config, [], torch.float32)
    if config.finetuning_type == "lora":
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero by default, which would hide errors in lora_A's gradient at step 1
                torch.nn.init.normal_(parameter, std=0.02)
    return StepTrainer(
        objective=SupervisedObjective(),
        forward=HiddenForward(model, Aids.of(config)),
        token_budget=budget,
        model=model,
        args=training_arguments(config, autocast=None),
        train_dataset=rows,
        eval_dataset=eval_rows,
        **extra,
    )


def weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float) -> None:
    assert left.keys() == right.keys()
    assert left
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=atol, rtol=0), (name, (value - right[name]).abs().max())


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_8x1_2x4_1x8_and_any_budget_give_the_same_weights(tmp_path: Path, finetuning_type: str) -> None:
    results = []
    for batch, accumulation, budget in ((8, 1, 512), (2, 4, 512), (1, 8, 40), (8, 1, 1)):
        trainer = make_trainer(
            tmp_path,
            Rows(48),
            budget,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            finetuning_type=finetuning_type,
            learning_rate=1e-3,
            optim="sgd",
        )
        trainer.train()
        results.append(weights(trainer))
    for other in results[1:]:
        assert_same(results[0], other, atol=1e-6)


def test_equals_a_plain_padded_loop_written_independently(tmp_path: Path) -> None:
    """Two optimizer steps of padded batches with torch's own loss over all trained tokens of the step."""
    rows = Rows(8)
    trainer = make_trainer(
        tmp_path,
        rows,
        per_device_train_batch_size=4,
        max_steps=2,
        disable_shuffling=True,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
    )
    plain = make_trainer(tmp_path, rows).model
    trainer.train()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=1e-2)
    plain.get_base_model().set_attn_implementation("eager")
    for step in range(2):
        items = rows.items[4 * step : 4 * step + 4]
        width = max(len(item["input_ids"]) for item in items)
        ids = torch.tensor([item["input_ids"] + [0] * (width - len(item["input_ids"])) for item in items])
        labels = torch.tensor([item["labels"] + [-100] * (width - len(item["labels"])) for item in items])
        mask = torch.tensor([[1] * len(i["input_ids"]) + [0] * (width - len(i["input_ids"])) for i in items])
        logits = plain(input_ids=ids, attention_mask=mask).logits[:, :-1].reshape(-1, 448)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(weights(trainer), {n: p for n, p in plain.named_parameters() if p.requires_grad}, atol=1e-6)


def test_packed_rows_give_what_the_same_rows_give_unpacked(tmp_path: Path) -> None:
    unpacked = make_trainer(
        tmp_path, Rows(16), per_device_train_batch_size=4, max_steps=4, disable_shuffling=True, optim="sgd"
    )
    packed = make_trainer(
        tmp_path, Rows(16, pack=4), per_device_train_batch_size=1, max_steps=4, disable_shuffling=True, optim="sgd"
    )
    unpacked.train()
    packed.train()
    assert_same(weights(unpacked), weights(packed), atol=1e-6)


class StopAt(StopOnSignal):
    """As if SIGTERM came during step `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.caught = 15
        super().on_step_end(args, state, control)


def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "max_steps": -1,
        "num_train_epochs": 3,
        "lora_dropout": 0.1,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
    }
    whole = make_trainer(tmp_path / "whole", Rows(11), **keys)
    whole.train()
    assert whole.state.global_step == 18
    for stop in (2, 6, 13):  # inside the first epoch, at an epoch's end, inside the last
        folder = tmp_path / f"stopped-{stop}"
        first = make_trainer(folder, Rows(11), save_strategy="no", callbacks=[StopAt(stop)], **keys)
        first.train()
        assert [path.name for path in list_checkpoints(folder)] == [f"checkpoint-{stop}"]
        second = make_trainer(folder, Rows(11), **keys)
        second.train(resume_from_checkpoint=str(folder / f"checkpoint-{stop}"))
        assert second.state.global_step == 18
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(second)[name]), (stop, name)


@pytest.mark.parametrize("keys", [{"max_steps": 2}, {"max_steps": -1, "num_train_epochs": 0.25}])
def test_a_run_that_is_done_makes_no_further_step(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Called again, as after a crash behind the last checkpoint, it ends where it ended, within an epoch, too."""
    keys |= {"per_device_train_batch_size": 2, "lr_scheduler_type": "constant"}
    whole = make_trainer(tmp_path, Rows(16), **keys | {"save_strategy": "steps", "save_steps": 2})
    whole.train()
    assert whole.state.global_step == 2
    again = make_trainer(tmp_path, Rows(16), **keys)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == 2
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


@pytest.mark.parametrize(
    "changes",
    [{"lora_rank": 8}, {"finetuning_type": "freeze", "freeze_trainable_layers": 1}, {"lora_target": "q_proj"}],
)
def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = make_trainer(tmp_path, Rows(8), max_steps=1, save_strategy="steps", save_steps=1)
    first.train()
    other = make_trainer(tmp_path, Rows(8), max_steps=2, **changes)
    with pytest.raises(TrainingError, match=r"checkpoint-1 is of a run with other weights.*overwrite_output_dir"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_evaluation_leaves_no_trace_in_the_weights(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"per_device_train_batch_size": 2, "lora_dropout": 0.3}
    without = make_trainer(tmp_path / "a", Rows(12), **keys)
    without.train()
    with_eval = make_trainer(
        tmp_path / "b", Rows(12), eval_rows=Rows(7, seed=9), eval_strategy="steps", eval_steps=1, **keys
    )
    with_eval.train()
    assert any("eval_loss" in entry for entry in with_eval.state.log_history)
    for name, value in weights(without).items():
        assert torch.equal(value, weights(with_eval)[name])


def test_eval_loss_is_the_mean_over_tokens_not_over_batches(tmp_path: Path) -> None:
    losses = [
        make_trainer(tmp_path, Rows(4), eval_rows=Rows(9, seed=5), per_device_eval_batch_size=size).evaluate()[
            "eval_loss"
        ]
        for size in (1, 4, 9)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)


class HeldTensors(TrainerCallback):
    """Numbers in all tensors that are alive after batches of an evaluation, at every tenth."""

    def __init__(self) -> None:
        self.calls = 0
        self.held: list[int] = []

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        if self.calls % 10 == 0:
            gc.collect()
            self.held.append(sum(one.numel() for one in gc.get_objects() if type(one) is torch.Tensor))


@pytest.mark.parametrize("keys", [{}, {"eval_accumulation_steps": 1000}, {"compute_accuracy": True}], ids=str)
def test_memory_does_not_grow_with_the_evaluation_set(tmp_path: Path, keys: dict[str, Any]) -> None:
    """After 40 batches no more tensors are alive than after ten: nothing of a batch is kept but sums."""
    watch = HeldTensors()
    rows = Rows(40, seed=5)
    make_trainer(tmp_path, Rows(4), eval_rows=rows, per_device_eval_batch_size=1, callbacks=[watch], **keys).evaluate()
    assert len(watch.held) == 4
    assert max(watch.held) - watch.held[0] < 24 * 400, "less than the logits of one row"


def test_a_non_finite_loss_stops_the_run_and_names_its_rows(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Rows(4), per_device_train_batch_size=2)
    with torch.no_grad():
        trainer.model.get_base_model().model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1.*rows of this step: \d"):
        trainer.train()


def test_the_best_checkpoint_is_loaded_at_the_end_and_early_stop_counts_evaluations(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        Rows(8),
        eval_rows=Rows(4, seed=9),
        per_device_train_batch_size=2,
        max_steps=30,
        learning_rate=0.5,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        save_total_limit=2,
        callbacks=[EarlyStop(3)],
    )
    trainer.train()
    history = [(e["step"], e["eval_loss"]) for e in trainer.state.log_history if "eval_loss" in e]
    best = min(history, key=lambda pair: pair[1])
    assert trainer.state.best_global_step == best[0]
    assert trainer.state.global_step < 30
    assert f"checkpoint-{best[0]}" in [path.name for path in list_checkpoints(tmp_path)]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best[1], rel=1e-4)


def _trained_layers(names: Sequence[str]) -> set[str]:
    return {name.split(".")[2] for name in names if ".layers." in name}


def test_freeze_trains_the_layers_that_were_named(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        Rows(4),
        finetuning_type="freeze",
        freeze_trainable_layers=1,
        freeze_trainable_modules="mlp",
        freeze_extra_modules="norm",
    )
    names = list(weights(trainer))
    assert _trained_layers(names) == {"1"}
    assert all(".mlp." in name or name == "model.norm.weight" for name in names)
    assert "model.norm.weight" in names
