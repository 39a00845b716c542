"""Hidden states of a causal language model at chosen positions, through whatever wraps it (PEFT, DDP).

Not here: losses (objectives/) and generation (inference/).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models import depths, rope
from tunesmith.models.aids import Aids
from tunesmith.models.attention import VARLEN, VARLEN_EAGER
from tunesmith.models.balance import balance_of_rows, check_routers
from tunesmith.models.noise import EmbeddingNoise

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences laid end to end: one row each, or the sequences of a row beside each other.

    Attributes:
        input_ids: (T,) token ids.
        position_ids: (T,) restart at 0 in each sequence.
        row_lengths: tokens of each sequence, sum T; of a forked row those of all its parts together.
        positions: (N,) indices into T of the tokens that predict a trained token.
        targets: (N,) the token ids that they should predict.
        weights: (N,) factor on the loss of each; None where all are 1.
        sequence_of: (N,) the sequence that each target is in, counted from 0, ascending; None where nobody asks.
        per_target: name -> (N,) numbers that came with the targets.
        per_row: name -> (R,) what is known of each row: `weight`, `desirable`.
        forks: for each of `row_lengths` the tokens of a beginning that sequences share and of their continuations,
            () where it is one sequence; None where no row forks. Positions of each continuation go on behind the
            beginning.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    row_lengths: tuple[int, ...]
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None = None
    sequence_of: torch.Tensor | None = None
    per_target: dict[str, torch.Tensor] = field(default_factory=dict)
    per_row: dict[str, torch.Tensor] = field(default_factory=dict)
    forks: tuple[tuple[int, ...], ...] | None = None

    @property
    def n_sequences(self) -> int:
        """Sequences in the line."""
        return len(self.row_lengths) if self.forks is None else sum(max(len(fork) - 1, 1) for fork in self.forks)

    @property
    def n_items(self) -> float:
        """What the loss sum of this micro-batch is to be divided by: its targets, by weight."""
        return len(self.targets) if self.weights is None else float(self.weights.double().sum())

    def items_of_sequences(self, item: str) -> torch.Tensor:
        """(S,) what each sequence counts in the division of the loss.

        Args:
            item: `token`: its targets, by weight; `row`: the weight of its row, shared by the row's sequences.
        """
        n_sequences = self.n_sequences
        if item == "row":
            each = n_sequences // len(self.per_row["weight"])
            return self.per_row["weight"].repeat_interleave(each) / each
        ends = torch.tensor(self.row_lengths, device=self.positions.device).cumsum(0)
        weights = torch.ones(len(self.targets), device=ends.device) if self.weights is None else self.weights
        sequence_of = torch.bucketize(self.positions, ends, right=True)
        return torch.zeros(n_sequences, device=ends.device).index_add(0, sequence_of, weights.float())

    def to(self, device: torch.device) -> MicroBatch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            sequence_of=None if self.sequence_of is None else self.sequence_of.to(device),
            per_target={name: values.to(device) for name, values in self.per_target.items()},
            per_row={name: values.to(device) for name, values in self.per_row.items()},
        )

    def apart(self) -> Iterator[MicroBatch]:
        """Each sequence as what a model reads of it alone, in order."""
        start, taken = 0, 0
        for length in self.row_lengths:
            tokens = slice(start, start + length)
            until = int((self.positions < start + length).sum())
            chosen = slice(taken, until)
            ids, places = self.input_ids[tokens], self.position_ids[tokens]
            yield MicroBatch(ids, places, (length,), self.positions[chosen] - start, self.targets[chosen])
            start, taken = start + length, until


def base_model_of(model: nn.Module) -> nn.Module:
    """The transformers model under PEFT."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


@contextmanager
def _identity_head(head: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Makes the head return its input while a forward pass runs; the module tree and its parameters stay.

    Yields:
        A list that the input is put into.
    """
    seen: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(hidden)
        return hidden

    head.forward = keep
    try:
        yield seen
    finally:
        del head.forward


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the mode that it was in afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class HiddenForward:
    """Calls a causal LM so that its head is never applied to a token that carries no loss.

    For models whose logits are just `head(hidden)` (checked by numbers on a probe, not by name), `__call__` gives
    hidden states and `head` the module to apply. Models that do more after the head (soft caps, scaling) get a head
    that is the identity, and `__call__` gives their own logits at the chosen positions.

    Args:
        model: the model as it will be called, wrapped or not.
        aids: what is added while the model is in training mode.
        reads_hidden: hidden states are what is wanted, whatever the model does to its logits.

    Raises:
        ModelError: an aid cannot work on this model.
    """

    def __init__(self, model: nn.Module, aids: Aids | None = None, *, reads_hidden: bool = False) -> None:
        base = base_model_of(model)
        self.aids = Aids()  # the probe below sees none
        self._top_k = 0
        self._noise: EmbeddingNoise | None = None
        self._extra: dict[str, list[torch.Tensor]] = {}
        self._is_routed = depths.is_routed(base.config)
        self._output_head: nn.Module = base.get_output_embeddings()
        parameters = inspect.signature(base.forward).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self._takes_positions = "logits_to_keep" in parameters
        implementation = getattr(base.config, "_attn_implementation", None)
        self.lays_rows_end_to_end = takes_any and implementation in _VARLEN_IMPLEMENTATIONS
        if rope.kind_of(base.config) == "dynamic":  # frequencies follow the longest row of a line
            self.lays_rows_end_to_end = False
        self._is_flash = str(implementation).startswith("flash")
        self._can_share: bool | None = None
        self._reads_hidden = reads_hidden
        self.is_plain_head = False
        if self.lays_rows_end_to_end and not self._is_flash and not self._keeps_rows_apart(model, base):
            self.lays_rows_end_to_end = False
            logger.info("this model carries a state from token to token: rows are read one by one")
        self.is_plain_head = reads_hidden or self._probe(model, base)
        self.head: Any = self._output_head if self.is_plain_head else nn.Identity()
        if not self.is_plain_head:
            logger.info("this model transforms its logits after the head: they are computed whole for trained tokens")
        if aids is not None:
            self._take(aids, base)

    def _take(self, aids: Aids, base: Any) -> None:
        self.aids = aids
        if aids.noise_alpha:
            self._noise = EmbeddingNoise(base.get_input_embeddings(), aids.noise_alpha)
        if aids.group_tokens and (self._is_flash or not self.lays_rows_end_to_end):
            raise ModelError("shift_attn: this model, or flash_attn, does not run through Tunesmith's own attention")
        if aids.balance:
            check_routers(base.config)
            self._top_k = int(base.config.get_text_config().num_experts_per_tok)

    @torch.no_grad()
    def _probe(self, model: nn.Module, base: nn.Module) -> bool:
        """Whether head(hidden) equals the model's own logits."""
        device = base.get_input_embeddings().weight.device
        ids = torch.arange(5, device=device) % base.config.get_text_config().vocab_size
        batch = MicroBatch(ids, torch.arange(5, device=device), (5,), torch.tensor([1, 4], device=device), ids[:2])
        with _evaluating(model):
            own = self._call(model, batch)
            with _identity_head(self._output_head):
                hidden = self._call(model, batch)
            if hidden.shape[-1] != getattr(self._output_head, "in_features", hidden.shape[-1]):
                return False
            ours = self._output_head(hidden)
        return ours.shape == own.shape and torch.allclose(ours.float(), own.float(), atol=1e-5, rtol=1e-4)

    def can_share(self, model: nn.Module) -> bool:
        """Whether the shared beginning of sequences may be read once (`MicroBatch.forks`); found out when first asked.

        Noise would differ between two readings of a prompt, and balance is counted by sequence: with these aids it may
        not. Models that carry a state from token to token, by convolution or recurrence, fail the probe.
        """
        if self._can_share is None:
            has_aids = bool(self.aids.noise_alpha or self.aids.group_tokens or self.aids.balance)
            may = self.lays_rows_end_to_end and not self._is_flash and not has_aids
            self._can_share = may and self._probe_fork(model, base_model_of(model))
        return self._can_share

    @torch.no_grad()
    def _keeps_rows_apart(self, model: nn.Module, base: nn.Module) -> bool:
        """Whether what a row gives does not depend on the row before it."""
        found = []
        with _evaluating(model):
            for before in ([0, 1, 2], [7, 8, 9]):
                batch = _probe_line(base, [*before, 3, 4, 5], [0, 1, 2, 0, 1, 2], (3, 3))
                found.append(self._call(model, batch)[3:])
        return _agree(found[0], found[1], tolerance=1e-5)

    @torch.no_grad()
    def _probe_fork(self, model: nn.Module, base: nn.Module) -> bool:
        """Whether two sequences with a shared beginning give what they give apart, neither depending on the other."""
        head, places = [0, 1, 2], [0, 1, 2, 3, 4, 3, 4]

        def read(first: list[int]) -> torch.Tensor:
            batch = _probe_line(base, [*head, *first, 5, 6], places, (7,))
            return self._run(model, replace(batch, forks=((3, 2, 2),)))

        with _evaluating(model):
            try:
                one, other = read([3, 4]), read([8, 9])
                left, right = (
                    self._run(model, _probe_line(base, [*head, *rest], places[:5], (5,))) for rest in ([3, 4], [5, 6])
                )
            except (RuntimeError, TypeError, ValueError):
                return False
        is_same = _agree(one, torch.cat([left, right[3:]]), tolerance=1e-4)
        return is_same and _agree(one[5:], other[5:], tolerance=1e-5)

    def _call(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        extra: dict[str, Any] = {}
        if self.lays_rows_end_to_end and self._is_flash:
            lengths = torch.tensor((0, *batch.row_lengths), dtype=torch.int32, device=batch.input_ids.device)
            ends = lengths.cumsum(0, dtype=torch.int32)
            longest = max(batch.row_lengths)
            extra = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
        elif self.lays_rows_end_to_end:
            extra = {"row_lengths": batch.row_lengths}
            if batch.forks is not None:
                extra["row_forks"] = batch.forks
        if self._takes_positions:
            extra["logits_to_keep"] = batch.positions
        if self._noise is not None:
            self._noise.row_lengths = batch.row_lengths
        if self.aids.group_tokens and model.training:
            extra["group_tokens"] = self.aids.group_tokens
        wants_balance = bool(self.aids.balance) and model.training
        if wants_balance:
            extra["output_router_logits"] = True
        output = model(input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], use_cache=False, **extra)
        if wants_balance:
            rows = balance_of_rows(output.router_logits, self._top_k, batch.row_lengths)
            self._extra.setdefault("balance_loss", []).append(rows)
        if self._is_routed:
            routed = depths.take_losses(model)
            self._extra.setdefault("router_loss", []).extend([] if routed is None else [routed])
        logits = output.logits[0]
        return logits if self._takes_positions else logits[batch.positions]

    def take_extra(self) -> dict[str, tuple[float, torch.Tensor]]:
        """Losses beside the objective's in the last call, once; none of them outside of training.

        Returns:
            Name -> weight, and the loss of each sequence (S,).
        """
        weights = {"balance_loss": self.aids.balance or 0.0, "router_loss": depths.ROUTER_LOSS}
        found = {name: (weights[name], torch.cat(parts)) for name, parts in self._extra.items() if parts}
        self._extra = {}
        return found

    def __call__(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """Runs the model over a micro-batch.

        Args:
            model: the model, wrapped or not.
            batch: sequences end to end; one after the other where the model cannot take them so.

        Returns:
            (N, H) hidden states at `batch.positions`; (N, V) logits where `is_plain_head` is False.
        """
        self._extra = {}
        if len(batch.row_lengths) > 1 and not self.lays_rows_end_to_end:
            return torch.cat([self._run(model, alone) for alone in batch.apart()])
        return self._run(model, batch)

    def _run(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        if not self.is_plain_head:
            return self._call(model, batch)
        with _identity_head(self._output_head) as seen:
            hidden = self._call(model, batch)
        if not self._reads_hidden:
            return hidden
        return seen[0][0] if self._takes_positions else seen[0][0][batch.positions]


def _probe_line(base: nn.Module, ids: list[int], places: list[int], lengths: tuple[int, ...]) -> MicroBatch:
    """A line of which every token is read."""
    table: Any = base.get_input_embeddings()
    line, at = (torch.tensor(numbers, device=table.weight.device) for numbers in (ids, places))
    return MicroBatch(line % len(table.weight), at, lengths, torch.arange(len(ids), device=line.device), line)


def _agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """Whether two readings are one up to a share of the largest number; half precision rounds more."""
    if found.dtype != torch.float32:
        tolerance = max(tolerance * 100, 1e-2)
    difference = (found.float() - expected.float()).abs().max()
    return bool(difference <= tolerance * expected.float().abs().max())


_VARLEN_IMPLEMENTATIONS = {VARLEN, VARLEN_EAGER, "flash_attention_2", "flash_attention_3"}
