"""The only subclass of transformers.Trainer: a batch is an optimizer step, rows lie end to end, the loss is a sum.

What is minimised is the objective's business; what the reference model says of a micro-batch is `reference.py`'s.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from tunesmith.core.errors import TrainingError
from tunesmith.data.growing import complete
from tunesmith.models.forward import HiddenForward, MicroBatch
from tunesmith.models.value_head import load_value_head, save_value_head, value_head_of, without_value_head
from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, Objective, Scored
from tunesmith.objectives.online import AnswerColumns
from tunesmith.training.batches import Row, StepRows, collate, micro_batches
from tunesmith.training.checkpoints import STAGING, fitting, manifest_of, publish, rotate
from tunesmith.training.optimizers.hooks import OptimizerHooks
from tunesmith.training.processes import PIECE_MB, start_alike, sum_gradients
from tunesmith.training.random_state import random_state_kept
from tunesmith.training.reference import Reference
from tunesmith.training.reinforce import Read, Reinforcement, measure_rows
from tunesmith.training.sampling import WindowSampler
from tunesmith.training.sums import Sums


class StepTrainer(OptimizerHooks, Trainer):
    """Trains an objective.

    What transformers calls a batch is here all rows of one optimizer step. `training_step` cuts them into micro-batches
    of at most `token_budget` tokens and divides each loss sum by the items (trained tokens, or rows) of the whole step
    on all processes, so the cut, the padding that is not there, and the number of processes change nothing in the
    result.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        forward: HiddenForward,
        token_budget: int,
        reference: Reference | None = None,
        hidden_metrics: frozenset[str] = frozenset(),
        checkpoint_facts: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_collator=collate, **kwargs)
        if self.args.world_size > 1:  # placed on its device, and no more: see training/processes.py
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.remove_callback(PrinterCallback)
        self.control: Any = self.control
        self.objective = objective
        self.hidden_forward = forward
        self.token_budget = token_budget
        self.reference = reference
        self.reinforcement: Reinforcement | None = None
        """Set for stages that answer prompts; the rows of the training set are prompts then."""
        self.answer_scores: Callable[[str, int], dict[str, float]] | None = None
        """Scores the answers to the evaluation rows, by the prefix of their metrics and the step; None: not asked."""
        self.hidden_metrics = hidden_metrics
        self.step_sums = Sums()
        self.checkpoint_facts = checkpoint_facts or {}
        self.evaluation_dtype: torch.dtype | None = None  # None: as in training
        self.tokens_seen = 0
        self.trained_tokens_seen = 0

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as transformers does, from the same weights in all processes."""
        if self.args.world_size > 1:
            start_alike(self.model)
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """A stream that is longer than its window is shuffled within it; everything else is transformers' matter."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        window = getattr(rows, "window", None)
        if window is None or window >= len(rows) or self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return WindowSampler(len(rows), window, seed)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """Where losses are computed: accelerate wraps the model's `forward` alone, and only parts of that run here."""
        place = self.args.device.type
        if torch.is_autocast_enabled(place):
            return contextlib.nullcontext()  # evaluation in a format of its own
        return torch.autocast(place, self.half) if self.half else contextlib.nullcontext()

    @property
    def half(self) -> torch.dtype | None:
        """The format that matrices are multiplied in where it is not that of the trained weights."""
        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None

    # -- one step ------------------------------------------------------------------------------------------------

    def _micro_batches(self, step: StepRows, parts: tuple[int, ...] | None) -> list[MicroBatch]:
        budget = self.token_budget if self.hidden_forward.lays_rows_end_to_end else 1
        shares = self.objective.example_kind == "preference" and self.hidden_forward.can_share(self.model)
        batches = micro_batches(step, budget, self.objective.reads, parts, shares=shares)
        return [batch.to(self.args.device) for batch in batches]

    def _get_num_items_in_batch(self, batch_samples: list[StepRows], device: torch.device) -> torch.Tensor:
        total = sum(step.count(self.objective.item) for step in batch_samples)
        if self.args.world_size == 1:
            return torch.tensor(total, dtype=torch.float64)
        count = torch.tensor(total, device=device, dtype=torch.float64)  # one dtype on all processes
        return self.accelerator.gather(count).sum()

    def training_step(
        self, model: nn.Module, inputs: StepRows, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one optimizer step; returns the mean loss of an item (nats).

        With reinforcement the rows are prompts, and all updates but the last one are made here.
        """
        model.train()
        if self.reinforcement is None:
            count = inputs.count(self.objective.item) if num_items_in_batch is None else num_items_in_batch
            return self._learn(model, inputs, float(count))
        *before, last = self.reinforcement.make(self, [row.number for row in inputs.rows], self.state.global_step)
        inputs.n_tokens = sum(update.n_tokens for update in (*before, last))
        for update in before:
            self._learn(model, update, self._global_items(update))
            self._update(model)
        return self._learn(model, last, self._global_items(last))

    def _global_items(self, update: StepRows) -> float:
        return float(self._get_num_items_in_batch([update], self.args.device))

    def _update(self, model: nn.Module) -> None:
        """An update within a step, as transformers makes the last one."""
        if self.args.max_grad_norm:
            self._get_grad_norm(model, self._clip_grad_norm(model))
        self.optimizer.step()
        model.zero_grad()

    def measure(self, rows: Sequence[Row], read: Read) -> list[AnswerColumns]:
        """What model and reference say of each row, without gradient and dropout."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            budget = self.token_budget if self.hidden_forward.lays_rows_end_to_end else 1
            found = measure_rows(rows, budget, lambda batch: self._score(model, batch.to(self.args.device)), read)
        model.train(was_training)
        return found

    def gather(self, numbers: torch.Tensor) -> torch.Tensor:
        """(N,) of this process to those of all; processes may have different numbers of them."""
        if self.args.world_size == 1:
            return numbers
        parts: list[list[float]] = gather_object([numbers.tolist()])
        return torch.tensor([number for part in parts for number in part], dtype=numbers.dtype)

    def _learn(self, model: nn.Module, inputs: StepRows, n_items: float) -> torch.Tensor:
        """Gradients of the mean loss of some rows.

        Args:
            model: in training mode.
            inputs: rows of this process.
            n_items: of all processes.
        """
        if n_items == 0:
            if not len(inputs):
                return torch.zeros((), device=self.args.device)  # all its rows were left out: nothing to learn
            raise TrainingError(f"no trained token in this step ({self._where(inputs)})")
        scale = 1.0 / n_items
        total = torch.zeros((), device=self.args.device)
        baseline = self._baseline([inputs])
        sums = Sums()
        batches = self._micro_batches(inputs, self.objective.parts)
        for index, batch in enumerate(batches):
            output = self._loss(model, batch, baseline)
            if index == len(batches) - 1:
                self.before_last_backward()
            self.accelerator.backward(output.loss_sum * scale)
            total += output.loss_sum.detach() * scale
            sums.add(output.metrics)
        if self.args.world_size > 1:
            sum_gradients(model, (self.args.ddp_bucket_cap_mb or PIECE_MB) * 2**20)
            total *= self.args.world_size  # transformers logs the mean of the processes' losses
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss is {total.item()} at step {self.state.global_step + 1}. Lower learning_rate, or look at "
                f"the rows of this step: {self._where(inputs)}; the last checkpoint is untouched"
            )
        every = self.args.torch_empty_cache_steps
        if every and self.state.global_step % every == 0 and torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tokens_seen += inputs.n_tokens
        self.trained_tokens_seen += inputs.n_trained
        if self.objective.observes:
            self.objective.observe(sums.totals(self.accelerator))
        self.step_sums.merge(sums)
        return total

    def _score(self, model: nn.Module, batch: MicroBatch, baseline: torch.Tensor | None = None) -> Scored:
        """Runs the reference, then the model, over a micro-batch."""
        per_target, reference = dict(batch.per_target), None
        if self.objective.reference == "logps" and REFERENCE_LOGPS not in per_target:
            per_target[REFERENCE_LOGPS] = self._reference.logps(model, batch)
        elif self.objective.reference == "scored":
            reference = self._reference.scored(model, batch)
        return Scored(
            hidden=self.hidden_forward(model, batch),
            head=self.hidden_forward.head,
            targets=batch.targets,
            weights=batch.weights,
            sequence_of=batch.sequence_of,
            n_sequences=batch.n_sequences,
            per_target=per_target,
            per_row=batch.per_row,
            reference=reference,
            baseline=baseline,
            value_head=value_head_of(model) if self.objective.needs_value_head else None,
        )

    @property
    def _reference(self) -> Reference:
        if self.reference is None:
            raise AssertionError(f"{type(self.objective).__name__} needs a reference model")
        return self.reference

    def _loss(self, model: nn.Module, batch: MicroBatch, baseline: torch.Tensor | None) -> LossOutput:
        with self.compute_loss_context_manager():
            output = self.objective.loss(self._score(model, batch, baseline))
            extra = self.hidden_forward.take_extra()
        if not extra:
            return output
        total, metrics = output.loss_sum, dict(output.metrics)
        items = batch.items_of_sequences(self.objective.item)
        for name, (weight, rows) in extra.items():
            part = (rows * items).sum()
            total, metrics[name] = total + weight * part, (part, float(items.sum()))
        return LossOutput(total, metrics)

    @torch.no_grad()
    def _baseline(self, steps: Iterable[StepRows]) -> torch.Tensor | None:
        """What the objective must know of all these rows before it can give the loss of any; dropout is off in it."""
        if self.objective.baseline_parts is None:
            return None
        model, sums = self.model_wrapped, Sums()
        was_training = model.training
        model.eval()
        for step in steps:
            for batch in self._micro_batches(step, self.objective.baseline_parts):
                with self.compute_loss_context_manager():
                    sums.add({"baseline": self.objective.baseline_sum(self._score(model, batch))})
        model.train(was_training)
        return sums.mean("baseline", self.accelerator)

    def _where(self, step: StepRows) -> str:
        """The files and row numbers behind a step."""
        source = getattr(self.train_dataset, "source", str)
        return "; ".join(str(source(row.number)) for row in step.rows)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is not None:
            return norm  # fp16: a step that overflows is left out, and the next loss is scaled less
        value = norm.item() if isinstance(norm, torch.Tensor) else norm
        if value is not None and not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the gradient norm is {value} at step {self.state.global_step + 1}; weights are left as they were. "
                "Lower learning_rate or set max_grad_norm; the last checkpoint is untouched"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the objective's metrics since the last entry to an entry with the training loss."""
        if "loss" in logs:
            means = self.step_sums.means(self.accelerator)
            logs |= self._shown(means | self.objective.derived(means | {"loss": logs["loss"]}))
            self.step_sums = Sums()
        super().log(logs, start_time)

    def _shown(self, metrics: Mapping[str, float]) -> dict[str, float]:
        hidden = self.hidden_metrics
        return {name: value for name, value in metrics.items() if name not in hidden and not name.startswith("_")}

    def floating_point_ops(self, inputs: Any) -> int:
        """6 x tokens x weights, on real tokens (there is no padding)."""
        return int(6 * inputs.n_tokens * self.model.num_parameters(exclude_embeddings=True))

    def _track_num_input_tokens(self, inputs: StepRows) -> None:
        if self.args.include_num_input_tokens_seen != "no":
            count = torch.tensor(inputs.n_tokens, device=self.args.device)
            self.state.num_input_tokens_seen += int(self.accelerator.gather(count).sum())

    # -- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluates; random state is left as it was, so training ends with the same weights either way."""
        half, place = self.evaluation_dtype, self.args.device.type
        with random_state_kept(), torch.autocast(place, half) if half else contextlib.nullcontext():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics as sums over all trained tokens; nothing is kept of a batch once it is added up."""
        model = self.model
        was_training = model.training
        model.eval()
        sums, n_rows = Sums(), 0
        baseline = self._baseline(dataloader)
        for step in dataloader:
            n_rows += len(step)
            losses = Sums()
            for batch in self._micro_batches(step, self.objective.parts):
                output = self._loss(model, batch, baseline)
                losses.add({"loss": (output.loss_sum, 0.0), **output.metrics})
            losses.add({"loss": (torch.zeros(()), step.count(self.objective.item))})
            sums.merge(losses)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        found = {"loss": 0.0} | sums.means(self.accelerator)
        found = self._shown(found | self.objective.derived(found))
        if self.answer_scores is not None:
            found |= self.answer_scores(metric_key_prefix, self.state.global_step)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=n_rows)

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """As ever; but transformers looks only behind a step whether all are done, and would make one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **named)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes checkpoint-N: staged, synced, renamed; then deletes surplus ones."""
        complete(self.train_dataset)  # nothing is kept of a run that a bad row will end
        self.store_flos()
        run_dir = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        staged, final = run_dir / STAGING / name, run_dir / name
        best = self.state.best_global_step
        if best:
            best_path = run_dir / f"checkpoint-{best}"
            if best == self.state.global_step or best_path.is_dir():
                self.state.best_model_checkpoint = str(best_path)
        started = time.monotonic()
        self.save_model(str(staged), _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(staged))
            self._save_scaler(str(staged))
            self._save_rng_state(str(staged))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._refresh_callback_states()
            self.state.save_to_json(str(staged / "trainer_state.json"))
            facts = {**self.checkpoint_facts, "step": self.state.global_step, "objective": self.objective.state()}
            if hasattr(self.train_dataset, "digest"):
                facts["data"] = self.train_dataset.digest()
            publish(staged, final, facts)
            rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()
        self.checkpoint_seconds = time.monotonic() - started

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights and tokenizer; the value head in a file of its own, where other programs look for it."""
        folder = Path(output_dir or self.args.output_dir)
        with without_value_head(self.model) as head:
            super()._save(str(folder), state_dict)
        if head is not None and self.args.should_save:
            save_value_head(head, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        with fitting(folder):
            self._load_with_head(folder, super()._load_from_checkpoint, resume_from_checkpoint, model)
        state = manifest_of(Path(resume_from_checkpoint)).get("objective", {})
        self.objective.load_state(state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with fitting(Path(checkpoint or ".")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        self._load_with_head(Path(str(self.state.best_model_checkpoint)), super()._load_best_model)

    def _load_with_head(self, folder: Path, load: Callable[..., None], *arguments: Any) -> None:
        with without_value_head(self.model) as head:
            load(*arguments)
        if head is not None:
            load_value_head(head, folder)

    def _refresh_callback_states(self) -> None:
        for callback in self._exportable():
            name, value = type(callback).__name__, callback.state()
            held = self.state.stateful_callbacks.get(name)
            if isinstance(held, list):
                held.append(value)
            else:
                self.state.stateful_callbacks[name] = value

    def _exportable(self) -> Iterator[ExportableState]:
        for candidate in [*self.callback_handler.callbacks, self.control]:
            if isinstance(candidate, ExportableState):
                yield candidate
