"""Updates during the backward pass: a weight changes and its gradient is freed as soon as that gradient is complete.

A step of the trainer may have several micro-batches. Gradients add up over them as usual, and only the last backward
pass updates, so that the result does not depend on the cut; the memory for gradients is saved where a step is one
micro-batch. LOMO: arXiv 2306.09782; AdaLOMO: arXiv 2310.10195.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.log import get_logger
from tunesmith.training.optimizers.several import Group, SeveralOptimizers, trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

Make = Callable[[list[Group]], torch.optim.Optimizer]


class UpdateInBackward(SeveralOptimizers):
    """One small optimizer a weight, each stepped by autograd when the gradient of its weight is complete.

    Args:
        groups: as for any optimizer: weights and their settings.
        make: makes the optimizer of one weight from a group that holds it alone.
        description: one line for the log.
    """

    def __init__(self, groups: Iterable[Group], make: Make, description: str) -> None:
        self._is_last = False
        self._squares: list[torch.Tensor] = []
        self._has_met_sums = False
        owned = [(weight, make([{**group, "params": [weight]}])) for group in groups for weight in group["params"]]
        super().__init__([part for _, part in owned], description)
        for weight, part in owned:
            weight.register_post_accumulate_grad_hook(self._hook(part))

    def _hook(self, part: torch.optim.Optimizer) -> Callable[[torch.Tensor], None]:
        def update(weight: torch.Tensor) -> None:
            if not self._is_last:
                self._note_sums()
                return
            assert weight.grad is not None
            self._squares.append(weight.grad.detach().float().square().sum())
            part.step()
            weight.grad = None

        return update

    def _note_sums(self) -> None:
        if not self._has_met_sums:
            self._has_met_sums = True
            logger.info(
                "a step has several micro-batches, so gradients are kept until its last one; the memory for them is "
                "saved only where a step is one micro-batch (a smaller batch, or more micro_batch_tokens)"
            )

    def arm(self) -> None:
        """The next backward pass is the last of this step: it updates."""
        self._is_last = True
        self._squares.clear()

    def step(self, closure: Any = None) -> None:
        """Nothing is left to do: the backward pass has updated."""
        self._is_last = False

    def gradient_norm(self) -> torch.Tensor:
        """Length of all gradients of this step."""
        if not self._squares:
            return torch.zeros(())
        return torch.stack(self._squares).sum().sqrt()


def lomo(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """Stochastic gradient descent without states, in the backward pass: no memory but that of one gradient.

    Weight decay pulls as in AdamW, by lr * decay, before the step: (1 - lr * decay) w - lr g.
    """

    def make(groups: list[Group]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=trainer.args.learning_rate)  # w - lr (g + decay w): the same

    return UpdateInBackward(trained_groups(trainer.model, trainer), make, "LOMO (SGD in the backward pass)")


def adalomo(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """A factored second moment in the backward pass (arXiv 2310.10195): Adafactor's update, a weight at a time.

    torch's Adafactor limits the relative step to 1/sqrt(t), which is more than any usual learning rate.
    """

    def make(groups: list[Group]) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(groups, lr=trainer.args.learning_rate, eps=(1e-30, 1e-3), foreach=False)

    groups = trained_groups(trainer.model, trainer)
    return UpdateInBackward(groups, make, "AdaLOMO (factored second moment in the backward pass)")
