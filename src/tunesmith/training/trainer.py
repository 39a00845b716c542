"""The only subclass of transformers.Trainer: a batch is an optimizer step, rows lie end to end, the loss is a sum."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from tunesmith.core.errors import TrainingError
from tunesmith.models.forward import HiddenForward, MicroBatch
from tunesmith.objectives.base import TokenObjective
from tunesmith.training.batches import StepRows, collate, micro_batches
from tunesmith.training.checkpoints import STAGING, publish, rotate
from tunesmith.training.optimizers.hooks import OptimizerHooks
from tunesmith.training.sampling import WindowSampler


class StepTrainer(OptimizerHooks, Trainer):
    """Trains a token objective.

    What transformers calls a batch is here all rows of one optimizer step. `training_step` cuts them into micro-batches
    of at most `token_budget` tokens and divides each loss sum by the trained tokens of the whole step on all processes,
    so the cut, the padding that is not there, and the number of processes change nothing in the result.
    """

    def __init__(
        self,
        *,
        objective: TokenObjective,
        forward: HiddenForward,
        token_budget: int,
        with_accuracy: bool = False,
        checkpoint_facts: dict[str, Any] | None = None,
        make_optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_collator=collate, **kwargs)
        self.make_optimizer = make_optimizer
        self.remove_callback(PrinterCallback)
        self.control: Any = self.control
        self.objective = objective
        self.hidden_forward = forward
        self.token_budget = token_budget
        self.with_accuracy = with_accuracy
        self.checkpoint_facts = checkpoint_facts or {}
        self.tokens_seen = 0
        self.trained_tokens_seen = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """A stream that is longer than its window is shuffled within it; everything else is transformers' matter."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        window = getattr(rows, "window", None)
        if window is None or window >= len(rows) or self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return WindowSampler(len(rows), window, seed)

    # -- one step ------------------------------------------------------------------------------------------------

    def _micro_batches(self, step: StepRows) -> list[MicroBatch]:
        budget = self.token_budget if self.hidden_forward.lays_rows_end_to_end else 1
        return [batch.to(self.args.device) for batch in micro_batches(step, budget)]

    def _get_num_items_in_batch(self, batch_samples: list[StepRows], device: torch.device) -> torch.Tensor:
        total = sum(step.n_items for step in batch_samples)
        if self.args.world_size == 1:
            return torch.tensor(total, dtype=torch.float64)
        count = torch.tensor(total, device=device, dtype=torch.float64)  # one dtype on all processes
        return self.accelerator.gather(count).sum()

    def training_step(
        self, model: nn.Module, inputs: StepRows, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one optimizer step; returns the mean loss of a trained token (nats)."""
        model.train()
        n_items = float(inputs.n_items if num_items_in_batch is None else num_items_in_batch)
        if n_items == 0:
            if not len(inputs) and self.args.world_size == 1:
                return torch.zeros((), device=self.args.device)  # all its rows were bad and let go: nothing to learn
            raise TrainingError(f"no trained token in this step ({self._where(inputs)})")
        # DDP averages gradients over processes; the sum over all of them is meant.
        scale = self.args.world_size / n_items
        total = torch.zeros((), device=self.args.device)
        batches = self._micro_batches(inputs)
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    hidden = self.hidden_forward(model, batch)
                    output = self.objective.loss(hidden, self.hidden_forward.head, batch.targets, batch.weights)
                if is_last:
                    self.before_last_backward()
                self.accelerator.backward(output.loss_sum * scale)
            total += output.loss_sum.detach() * scale
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
        return total

    def _where(self, step: StepRows) -> str:
        """The files and row numbers behind a step."""
        source = getattr(self.train_dataset, "source", str)
        return "; ".join(str(source(row.number)) for row in step.rows)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        value = norm.item() if isinstance(norm, torch.Tensor) else norm
        if value is not None and not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the gradient norm is {value} at step {self.state.global_step + 1}; weights are left as they were. "
                "Lower learning_rate or set max_grad_norm; the last checkpoint is untouched"
            )
        return norm

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
        """Evaluates the loss; random state is left as it was, so training ends with the same weights either way."""
        with torch.random.fork_rng():
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
        sums = torch.zeros(4, dtype=torch.float64, device=self.args.device)
        n_rows = 0
        for step in dataloader:
            n_rows += len(step)
            for batch in self._micro_batches(step):
                with self.compute_loss_context_manager():
                    hidden = self.hidden_forward(model, batch)
                    output = self.objective.loss(hidden, self.hidden_forward.head, batch.targets, batch.weights)
                correct, count = output.metrics.get("accuracy", (torch.zeros(()), 0))
                counts = torch.tensor([float(count), batch.n_items]).to(sums)
                sums += torch.cat([torch.stack([output.loss_sum.double(), correct.double()]), counts])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, reduction="sum")
        loss, correct_sum, n_trained, n_items = sums.tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / (n_items or 1)}
        if self.with_accuracy:
            metrics[f"{metric_key_prefix}_accuracy"] = correct_sum / max(n_trained, 1)
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=n_rows)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes checkpoint-N: staged, synced, renamed; then deletes surplus ones."""
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
            publish(staged, final, {**self.checkpoint_facts, "step": self.state.global_step})
            rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()
        self.checkpoint_seconds = time.monotonic() - started

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
