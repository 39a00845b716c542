"""BAdam's ratio mode: Adam on a share of the numbers of every weight, another share after some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.training.optimizers.several import Group

logger = get_logger(__name__)

_WHOLE = 100
"""Weights of fewer numbers are trained whole."""
_NEVER = -1


def share_of(total: int, ratio: float) -> int:
    """How many of `total` numbers of a weight are trained at a time."""
    return total if total < _WHOLE else max(1, int(total * ratio))


class ShareAdam(torch.optim.Optimizer):
    """AdamW on `badam_update_ratio` of the numbers of each weight in the layers.

    Gradients of the share are taken out as soon as they appear, and the rest is freed; they add up over the
    micro-batches of a step.

    Attributes:
        steps: steps done.
    """

    def __init__(self, config: RunConfig, trainer: Any, prefix: str, groups: list[Group]) -> None:
        args, always = trainer.args, "v_head."
        names = {weight: name for name, weight in trainer.model.named_parameters()}
        for weight in names:
            weight.requires_grad_(weight.requires_grad and names[weight].startswith((f"{prefix}.", always)))
        kept = [{**group, "params": [w for w in group["params"] if w.requires_grad]} for group in groups]
        kept = [group for group in kept if group["params"]]
        if not kept:
            raise TrainingError("use_badam: no layer is trained")
        settings = {
            "lr": args.learning_rate,
            "betas": (args.adam_beta1, args.adam_beta2),
            "eps": args.adam_epsilon,
            "weight_decay": args.weight_decay,
        }
        super().__init__(kept, settings)
        self._ratio, self._scatter = config.badam_update_ratio, config.badam_mask_mode == "scatter"
        interval = config.badam_switch_interval
        self._interval = _NEVER if interval is None or config.badam_switch_mode == "fixed" else interval
        self._seed, self._verbose, self.steps = args.seed, config.badam_verbose, 0
        self._gradients: dict[torch.Tensor, torch.Tensor] = {}
        self._places: dict[torch.Tensor, torch.Tensor | slice] = {}
        weights = [weight for group in kept for weight in group["params"]]
        self._numbers = {weight: number for number, weight in enumerate(weights)}
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self._take)
        self.description = f"BAdam on {self._ratio:g} of each weight"

    def _place(self, weight: torch.Tensor) -> torch.Tensor | slice:
        """Which numbers of a flat weight are trained now."""
        if weight not in self._places:
            self._places[weight] = self._new_place(weight)
        return self._places[weight]

    def _new_place(self, weight: torch.Tensor) -> torch.Tensor | slice:
        total = weight.numel()
        count = share_of(total, self._ratio)
        turn = 0 if self._interval == _NEVER else self.steps // self._interval
        start = turn * count % total
        if count == total:
            return slice(0, total)
        if not self._scatter and start + count <= total:
            return slice(start, start + count)
        places = torch.arange(start, start + count) % total
        if self._scatter:
            generator = torch.Generator().manual_seed(self._seed + self._numbers[weight])
            places = torch.randperm(total, generator=generator)[places]
        return places.to(weight.device)

    def _take(self, weight: torch.Tensor) -> None:
        assert weight.grad is not None
        part = weight.grad.view(-1)[self._place(weight)].float()
        held = self._gradients.get(weight)
        self._gradients[weight] = part.clone() if held is None else held + part
        weight.grad = None

    def gradient_norm(self) -> torch.Tensor:
        """Length of the gradients of the share."""
        squares = [part.square().sum() for part in self._gradients.values()]
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())

    def clip(self, max_norm: float) -> torch.Tensor:
        """Shortens the gradients of the share to `max_norm`; gives their length before."""
        norm = self.gradient_norm()
        for part in self._gradients.values():
            part.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        return norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """AdamW on the share, then another share when its time is over."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight in self._gradients:
                    self._update(weight, self._gradients[weight], group)
        self._gradients.clear()
        self.steps += 1
        if self._interval != _NEVER and self.steps % self._interval == 0:
            self.state.clear()
            self._places.clear()
            if self._verbose:
                logger.info("badam: step %d, the next share", self.steps)

    def _update(self, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        """Adam with bias correction on the numbers at one weight's place."""
        state = self.state[weight]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(gradient))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        depth = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        flat, place = weight.view(-1), self._place(weight)
        old = flat[place].float()
        new = old * (1 - group["lr"] * group["weight_decay"])
        new.addcdiv_(mean, depth, value=-group["lr"] / (1 - beta1 ** state["step"]))
        flat[place] = new.to(flat.dtype)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops gradients that were not used."""
        self._gradients.clear()
        super().zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Moments of the share, and the number of steps, which says where the share lies."""
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes back to a share and its moments."""
        self.steps = state_dict["steps"]
        self._places.clear()
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "steps"})
        for weight, number in self._numbers.items():
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor):  # torch rounds states to the weights' number format
                    self.state[weight][name] = value.to(weight.device, torch.float32)
