"""Schedule-free optimizers (arXiv 2405.15682): steps at one point, evaluation and saving at the average of all.

The arithmetic is the package's. Added here: the average stands in the model only while it is looked at, and the point
where the steps are comes back bit for bit, so that neither evaluation nor saving changes a run, and a resume is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.config.optimizer_rules import optim_settings
from tunesmith.core.errors import TrainingError
from tunesmith.core.optional import require
from tunesmith.training.optimizers.several import trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_KINDS = {
    "schedule_free_adamw": "AdamWScheduleFree",
    "schedule_free_radam": "RAdamScheduleFree",
    "schedule_free_sgd": "SGDScheduleFree",
}


class AveragedOptimizer(torch.optim.Optimizer):
    """A schedule-free optimizer that the trainer can use as any other.

    Args:
        inner: the package's optimizer.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._is_done = False
        self.defaults = inner.defaults
        self.description = type(inner).__name__
        inner.train()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The package's groups."""
        return self._inner.param_groups

    @property
    def state(self) -> Any:
        """The package's states."""
        return self._inner.state

    def step(self, closure: Any = None) -> None:
        """A step of the package's optimizer."""
        self._inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Frees all gradients."""
        self._inner.zero_grad(set_to_none)

    def _weights(self) -> list[torch.Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model holds the average; afterwards the point of the steps, bit for bit."""
        if self._is_done or not self._inner.param_groups[0]["train_mode"]:
            yield
            return
        weights = self._weights()
        kept = [weight.detach().clone() for weight in weights]
        self._inner.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, kept, strict=True):
                    weight.copy_(value)
            for group in self.param_groups:
                group["train_mode"] = True

    def finish(self) -> None:
        """The last step is done: from now on the model holds the average."""
        if not self._is_done:
            self._inner.eval()
            self._is_done = True

    def state_dict(self) -> dict[str, Any]:
        """The package's state, and the point of the steps: a checkpoint's weights are the average."""
        points = [weight.detach().clone() for weight in self._weights()] if self.state else []
        return {"inner": self._inner.state_dict(), "points": points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes states back, and puts the weights where the steps were."""
        self._inner.load_state_dict(state_dict["inner"])
        if state_dict["points"]:
            with torch.no_grad():
                for weight, point in zip(self._weights(), state_dict["points"], strict=True):
                    weight.copy_(point)


def schedule_free(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """AdamW, RAdam or SGD without a schedule; the learning rate stays as it is after its warm-up.

    Raises:
        MissingPackageError: schedulefree is not installed.
        TrainingError: `optim_args` holds no numbers.
    """
    package = require("schedulefree", "schedulefree", f"optim: {config.optim}")
    args = trainer.args
    try:
        settings: dict[str, Any] = {name: float(value) for name, value in optim_settings(config).items()}
    except ValueError as error:
        raise TrainingError(f"optim_args: {config.optim_args}: {error}") from error
    if config.optim != "schedule_free_sgd":
        settings |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    groups = [group for group in trained_groups(trainer.model, trainer) if group["params"]]
    return AveragedOptimizer(getattr(package, _KINDS[config.optim])(groups, lr=args.learning_rate, **settings))
