"""Where the trainer and an optimizer of ours meet: making it, the last micro-batch, gradient norms, averaged weights.

A mixin for the trainer, so that none of this stands between the lines of a training step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class OptimizerHooks:
    """Between StepTrainer and transformers.Trainer.

    An optimizer may bring what a plain one does not have:
        `arm()`: called before the last backward pass of a step; only after it gradients are complete.
        `gradient_norm()`, `clip(max_norm)`: for one that takes gradients away from the weights as they appear.
        `averaged()`: a context in which the model holds the weights to evaluate and to save.
        `finish()`: called after the last step.
    """

    optimizer: Any
    args: Any
    make_optimizer: Callable[[Any], torch.optim.Optimizer] | None = None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that the configuration asks for."""
        if self.optimizer is None and self.make_optimizer is not None:
            self.optimizer = self.make_optimizer(self)
        return super().create_optimizer(model)  # type: ignore[misc]

    def plain_optimizer(self) -> torch.optim.Optimizer:
        """What transformers makes of `optim` and `optim_args`.

        Raises:
            ImportError, ValueError, RuntimeError: as transformers and the packages behind it say it.
        """
        return super().create_optimizer(None)  # type: ignore[misc]

    @property
    def own_optimizer(self) -> Any:
        """The optimizer without accelerate's wrapper; None before training."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _offers(self, name: str) -> Any:
        return getattr(self.own_optimizer, name, None)

    def before_last_backward(self) -> None:
        """Tells an optimizer that updates during the backward pass that this one completes the gradients."""
        arm = self._offers("arm")
        if arm is not None:
            arm()

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        clip = self._offers("clip")
        return clip(self.args.max_grad_norm) if clip else super()._clip_grad_norm(model)  # type: ignore[misc]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = self._offers("gradient_norm")
        if grad_norm is None and norm is not None:
            return norm()
        return super()._get_grad_norm(model, grad_norm)  # type: ignore[misc]

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within it the model holds the weights to evaluate and to save; afterwards it is as before, bit for bit."""
        averaged = self._offers("averaged")
        with averaged() if averaged else contextlib.nullcontext():
            yield

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As transformers does, on averaged weights where there are some."""
        with self.averaged_weights():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """As transformers does, with averaged weights where there are some."""
        with self.averaged_weights():
            super().save_model(*args, **kwargs)  # type: ignore[misc]

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        finish = self._offers("finish")
        if finish is not None:
            finish()
        return super()._finalize_training(*args, **kwargs)  # type: ignore[misc]
