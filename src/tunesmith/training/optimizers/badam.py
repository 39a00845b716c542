"""BAdam (arXiv 2404.02827): Adam on one block of layers at a time, or on a share of every weight.

Written here and not taken from the package of that name, whose state cannot be resumed (it holds the current block
alone), whose interval of -1 goes on at every step instead of never, and whose ratio mode resets the random numbers of
the whole run. Blocks, order, intervals and the update are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.models.targets import layers_of
from tunesmith.training.optimizers.several import Group, trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

NEVER = -1
ALWAYS = "v_head."
"""A value head is new and belongs to every block."""


def badam(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """Block-wise Adam in the mode that `badam_mode` names. Embeddings, head and last norm stay as they are.

    Raises:
        TrainingError: `badam_start_block` is no layer, or no layer is trained.
    """
    prefix, layers = layers_of(trainer.model)
    groups = trained_groups(trainer.model, trainer)
    if config.badam_mode == "ratio":
        from tunesmith.training.optimizers.badam_ratio import ShareAdam

        return ShareAdam(config, trainer, prefix, groups)
    return BlockAdam(config, trainer, prefix, len(layers))


class BlockAdam(torch.optim.Optimizer):
    """AdamW whose states exist for one block of layers; the other blocks stand still and get no gradients.

    Weights in half precision are updated through a float32 copy of the active block.

    Attributes:
        blocks: names of the trained weights of each layer.
        active: number of the block that is trained.
        steps: steps done.
    """

    def __init__(self, config: RunConfig, trainer: Any, prefix: str, n_layers: int) -> None:
        args = trainer.args
        self._named = {n: w for n, w in trainer.model.named_parameters() if w.requires_grad}
        self._decaying = set(trainer.get_decay_parameter_names(trainer.model))
        self.blocks = [[n for n in self._named if n.startswith(f"{prefix}.{index}.")] for index in range(n_layers)]
        self._always = {n for n in self._named if n.startswith(ALWAYS)}
        self._order = list(_order(config, [index for index, names in enumerate(self.blocks) if names]))
        self._mode, self._verbose = config.badam_switch_mode or "ascending", config.badam_verbose
        self._interval = NEVER if config.badam_switch_interval is None else config.badam_switch_interval
        self._settings = {
            "lr": args.learning_rate,
            "betas": (args.adam_beta1, args.adam_beta2),
            "eps": args.adam_epsilon,
        }
        self._decay = args.weight_decay
        self.defaults = {**self._settings, "weight_decay": self._decay}
        self.steps, self._place, self._generator = 0, 0, torch.Generator().manual_seed(args.seed)
        if self._mode == "random":
            self._shuffle()
        self._activate(self._order[0])
        self.description = f"BAdam, {len(self._order)} blocks of layers, {self._interval} steps each"

    @property
    def param_groups(self) -> list[Group]:
        """Groups of the active block."""
        return self._inner.param_groups

    @property
    def state(self) -> Any:
        """States of the active block."""
        return self._inner.state

    def _shuffle(self) -> None:
        self._order = [self._order[i] for i in torch.randperm(len(self._order), generator=self._generator).tolist()]

    def _activate(self, block: int, rates: dict[str, Any] | None = None) -> None:
        """Makes one block the trained one; its states begin at 0."""
        self.active = block
        names = set(self.blocks[block]) | self._always
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        groups: list[Group] = [{"params": [], "weight_decay": self._decay}, {"params": [], "weight_decay": 0.0}]
        for name, weight in self._named.items():
            weight.requires_grad_(name in names)
            weight.grad = None
            if name in names:
                exact = weight if weight.dtype == torch.float32 else nn.Parameter(weight.detach().float())
                self._pairs.append((weight, exact))
                groups[name not in self._decaying]["params"].append(exact)
        groups = [{**group, **(rates or {})} for group in groups]  # empty ones stay: a scheduler counts groups
        self._inner = torch.optim.AdamW(groups, **self._settings)
        if self._verbose:
            logger.info("badam: step %d, block %d of %d", self.steps, block, len(self.blocks))
        if self._verbose > 1:
            logger.info("badam: %s", ", ".join(sorted(names)))

    def step(self, closure: Any = None) -> None:
        """Updates the active block and goes on to the next when its time is over."""
        for weight, exact in self._pairs:
            if exact is not weight:
                exact.grad = None if weight.grad is None else weight.grad.float()
        self._inner.step()
        with torch.no_grad():
            for weight, exact in self._pairs:
                if exact is not weight:
                    weight.copy_(exact)
                    exact.grad = weight.grad = None
        self.steps += 1
        if self._interval != NEVER and self._mode != "fixed" and self.steps % self._interval == 0:
            self._go_on()

    def _go_on(self) -> None:
        self._place += 1
        if self._place == len(self._order):
            self._place = 0
            if self._mode == "random":
                self._shuffle()
        group = self.param_groups[0]
        self._activate(self._order[self._place], {k: group[k] for k in ("lr", "initial_lr") if k in group})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Frees the gradients of the active block."""
        for weight, _ in self._pairs:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Place in the order, random state, and the active block's states with their exact weights."""
        masters = [exact.detach() for weight, exact in self._pairs if exact is not weight]
        return {
            "steps": self.steps,
            "place": self._place,
            "order": list(self._order),
            "generator": self._generator.get_state(),
            "inner": self._inner.state_dict(),
            "exact": masters,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes back to a block and its states."""
        self.steps, self._place = state_dict["steps"], state_dict["place"]
        self._order = list(state_dict["order"])
        self._generator.set_state(state_dict["generator"].cpu())
        if self._order[self._place] != self.active:
            self._activate(self._order[self._place])
        self._inner.load_state_dict(state_dict["inner"])
        with torch.no_grad():
            lossy = [exact for weight, exact in self._pairs if exact is not weight]
            for exact, saved in zip(lossy, state_dict["exact"], strict=True):
                exact.copy_(saved)


def _order(config: RunConfig, blocks: list[int]) -> Iterator[int]:
    """Blocks in the order in which they are trained, from `badam_start_block` on."""
    if not blocks:
        raise TrainingError("use_badam: no layer is trained")
    start = config.badam_start_block
    if start is not None and start not in blocks:
        raise TrainingError(f"badam_start_block: {start} is none of the trained layers {blocks[0]} to {blocks[-1]}")
    backward = config.badam_switch_mode == "descending"
    line = blocks[::-1] if backward else blocks
    first = line.index(start) if start is not None else 0
    yield from line[first:] + line[:first]
