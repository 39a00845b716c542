"""The value head: one number for a token out of its hidden state. Kept beside the weights as trl keeps it.

Here too: scores of whole sequences by a model that has one. Losses are the business of objectives/.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models.forward import HiddenForward, MicroBatch, base_model_of

FILE = "value_head.safetensors"
_OLD_FILE = "value_head.bin"
_NAME = "v_head"
_KEYS = {"weight": "v_head.summary.weight", "bias": "v_head.summary.bias"}
_BUDGET = 2048
"""Tokens that are scored at once."""
logger = get_logger(__name__)


class ValueHead(nn.Module):
    """One linear map to a number.

    Args:
        width: of the hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.summary = nn.Linear(width, 1)
        nn.init.normal_(self.summary.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(self.summary.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, H) hidden states to (n,) values, in the dtype of the head."""
        values: torch.Tensor = self.summary(hidden.to(self.summary.weight.dtype)).squeeze(-1)
        return values


def value_head_of(model: nn.Module) -> ValueHead | None:
    """The value head of a model; None where it has none."""
    head: ValueHead | None = getattr(model, _NAME, None)
    return head


def attach_value_head(
    model: nn.Module, folders: Sequence[Path], *, must_exist: bool = False, starts_at_zero: bool = False
) -> ValueHead:
    """Puts a value head on a model, in float32, trainable; loaded where one of the folders has one.

    Args:
        model: as it is trained or asked, PEFT and all.
        folders: where it may be saved, looked into in order.
        must_exist: a new head would answer noise: it must be in one of the folders.
        starts_at_zero: a new head says 0 of everything: a critic that knows nothing yet must not steer by noise.

    Raises:
        ModelError: it must exist and does not, or it does not fit the model.
    """
    base: Any = base_model_of(model)
    head = ValueHead(base.config.get_text_config().hidden_size)
    found = next((folder for folder in folders if has_value_head(folder)), None)
    if found is not None:
        load_value_head(head, found)
        logger.info("value head taken from %s", found)
    elif must_exist:
        places = ", ".join(str(folder) for folder in folders)
        raise ModelError(f"no {FILE} in {places}: it is no reward model; train one with stage: rm")
    elif starts_at_zero:
        nn.init.zeros_(head.summary.weight)
    head.to(next(model.parameters()).device)
    setattr(model, _NAME, head)
    return head


@contextmanager
def without_value_head(model: nn.Module) -> Iterator[ValueHead | None]:
    """The model as transformers and peft know it: its state holds no value head."""
    head = value_head_of(model)
    if head is None:
        yield None
        return
    delattr(model, _NAME)
    try:
        yield head
    finally:
        setattr(model, _NAME, head)


def has_value_head(folder: Path) -> bool:
    """Whether a value head is saved in a folder."""
    return (folder / FILE).is_file() or (folder / _OLD_FILE).is_file()


def copy_value_head(folders: Sequence[Path], target: Path) -> bool:
    """Puts the value head of the first folder that has one beside merged weights; False where none has."""
    files = [folder / name for folder in folders for name in (FILE, _OLD_FILE)]
    found = next((file for file in files if file.is_file()), None)
    if found is not None:
        shutil.copy(found, target / found.name)
    return found is not None


def save_value_head(head: ValueHead, folder: Path) -> None:
    """Writes value_head.safetensors."""
    from safetensors.torch import save_file

    state = {name: getattr(head.summary, part).detach().cpu().contiguous() for part, name in _KEYS.items()}
    save_file(state, str(folder / FILE), metadata={"format": "pt"})


def load_value_head(head: ValueHead, folder: Path) -> None:
    """Reads value_head.safetensors, or value_head.bin of older runs.

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    from safetensors.torch import load_file

    path = folder / FILE if (folder / FILE).is_file() else folder / _OLD_FILE
    try:
        state = load_file(str(path)) if path.name == FILE else torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for part, name in _KEYS.items():
                own = getattr(head.summary, part)
                own.copy_(state[name].reshape(own.shape))
    except Exception as error:  # safetensors and pickle raise types of their own
        raise ModelError(f"{path} cannot be used as the value head of this model: {error}") from error


@torch.no_grad()
def score_sequences(model: nn.Module, sequences: Sequence[Sequence[int]]) -> list[float]:
    """The value of the last token of each sequence: what a reward model thinks of it.

    Args:
        model: with a value head; it is asked in evaluation mode.
        sequences: token ids, at least one each.

    Raises:
        ModelError: the model has no value head.
    """
    head = value_head_of(model)
    if head is None:
        raise ModelError(f"this model has no value head ({FILE}): it is no reward model; train one with stage: rm")
    was_training = model.training
    model.eval()
    try:
        return last_values(model, HiddenForward(model, reads_hidden=True), head, sequences)
    finally:
        model.train(was_training)


@torch.no_grad()
def last_values(
    model: nn.Module, forward: HiddenForward, head: ValueHead, sequences: Sequence[Sequence[int]]
) -> list[float]:
    """What a head makes of the last token of each sequence, with the model as it is at the moment.

    Args:
        model: in evaluation mode.
        forward: over it, reading hidden states.
        head: the model's own or another one.
        sequences: token ids, at least one each.
    """
    device = next(model.parameters()).device
    groups = _groups(sequences, _BUDGET)
    return [score for group in groups for score in head(forward(model, _ends(group, device))).float().tolist()]


def _groups(sequences: Sequence[Sequence[int]], budget: int) -> Iterator[list[Sequence[int]]]:
    """Sequences in order, a few at a time."""
    group: list[Sequence[int]] = []
    for sequence in sequences:
        if group and sum(map(len, group)) + len(sequence) > budget:
            yield group
            group = []
        group.append(sequence)
    if group:
        yield group


def _ends(sequences: Sequence[Sequence[int]], device: torch.device) -> MicroBatch:
    lengths = tuple(len(sequence) for sequence in sequences)
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    places = torch.cat([torch.arange(length) for length in lengths])
    ends = torch.tensor(lengths).cumsum(0) - 1
    return MicroBatch(ids, places, lengths, ends, ids[ends]).to(device)
