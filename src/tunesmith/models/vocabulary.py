"""Embedding rows for tokens that the base model does not know: how many, which, and how they start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models.tokenizer import new_special_tokens

logger = get_logger(__name__)

_PAD_TO = 64


def _brings_tokens(config: RunConfig) -> bool:
    return bool(config.add_tokens or config.add_special_tokens or config.new_special_tokens_config)


def new_token_ids(config: RunConfig, tokenizer: Any, rows: int) -> list[int]:
    """Ids that training must learn from nothing: those named by the configuration and those beyond the old rows.

    Args:
        config: `add_tokens`, `add_special_tokens`, `new_special_tokens_config`.
        tokenizer: with the tokens added.
        rows: embedding rows of the base model.
    """
    names = [*config.add_tokens, *config.add_special_tokens, *new_special_tokens(config.new_special_tokens_config)]
    ids = {int(tokenizer.convert_tokens_to_ids(name)) for name in names}
    return sorted(ids | set(range(rows, len(tokenizer))))


def fit_vocabulary(model: nn.Module, tokenizer: Any, config: RunConfig) -> list[int]:
    """Gives the embedding (and an untied head) a row for every token.

    New rows start at the mean of the old ones plus a little noise (`noise_init`), or at the mean of the tokens of their
    description (`desc_init`, `desc_init_w_noise`), seeded by `seed`.

    Returns:
        The ids of new tokens; empty when the model knew them all.

    Raises:
        ModelError: rows are missing and nothing allows to add them.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    ids = new_token_ids(config, tokenizer, rows)
    if len(tokenizer) > rows:
        if not (config.resize_vocab or _brings_tokens(config) or config.adapter_name_or_path):
            raise ModelError(
                f"the tokenizer knows {len(tokenizer)} tokens, the model has rows for {rows}; "
                "set resize_vocab: true to add rows"
            )
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=_PAD_TO, mean_resizing=False)
        grown = model.get_input_embeddings().weight.shape[0]
        logger.info("vocabulary: %d rows -> %d (for %d tokens)", rows, grown, len(tokenizer))
        _start_rows(model, range(rows, grown), rows, config.seed)
    _start_described(model, tokenizer, config)
    return ids


def _weights(model: nn.Module) -> list[torch.Tensor]:
    """The embedding and, where it is another tensor, the head's weight."""
    tables = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight.data_ptr() != tables[0].data_ptr():
        tables.append(head.weight)
    return tables


@torch.no_grad()
def _start_rows(model: nn.Module, new: range, old_rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for table in _weights(model):
        known = table[:old_rows].float()
        noise = torch.randn(len(new), table.shape[1], generator=generator) * known.std(dim=0).cpu() * 0.02
        table[new.start : new.stop] = (known.mean(dim=0).cpu() + noise).to(table)


@torch.no_grad()
def _start_described(model: nn.Module, tokenizer: Any, config: RunConfig) -> None:
    descriptions = new_special_tokens(config.new_special_tokens_config)
    if not descriptions or config.init_special_tokens == "noise_init":
        return
    generator = torch.Generator().manual_seed(config.seed)
    for token, text in descriptions.items():
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        place = int(tokenizer.convert_tokens_to_ids(token))
        for table in _weights(model):
            mean = table[words].float().mean(dim=0)
            if config.init_special_tokens == "desc_init_w_noise":
                mean = mean + torch.randn(mean.shape, generator=generator).to(mean) * table.float().std() * 0.02
            table[place] = mean.to(table)
