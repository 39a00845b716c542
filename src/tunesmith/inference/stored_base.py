"""The base model as it lies on the disk, for engines that read it themselves."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on the disk.

    Attributes:
        folder: its files.
        dtype: number format to compute in: `float32`, `bfloat16`, `float16`.
        positions: prompt and answer together, in tokens, as the model was made for; None: unknown.
        vocabulary: rows of its embedding.
        n_gpus: there are, at least 1 for machines without.
        seed: for requests without one.
        generation_config: transformers' notes on end tokens; None: there are none.
    """

    folder: Path
    dtype: str
    positions: int | None
    vocabulary: int
    n_gpus: int = 1
    seed: int = 0
    generation_config: Any = None

    def context(self, wanted: int) -> int:
        """The length that was asked for, or the model's own where that is less."""
        if self.positions is None or wanted <= self.positions:
            return wanted
        logger.info("this model is made for %d tokens, fewer than the %d asked for", self.positions, wanted)
        return self.positions


def find_base(config: RunConfig) -> Base:
    """The base model of a configuration, without loading it.

    Raises:
        ModelError: it cannot be found or read.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    from tunesmith.models import rope
    from tunesmith.models.dtype import inference_dtype
    from tunesmith.models.hub import resolve_model
    from tunesmith.models.load import stored_dtype

    folder = resolve_model(
        config.model_name_or_path or "",
        revision=config.model_revision,
        cache_dir=config.cache_dir,
        token=config.hf_hub_token,
    ).path
    dtype = inference_dtype(config, stored_dtype(folder))
    model_config = AutoConfig.from_pretrained(str(folder), trust_remote_code=config.trust_remote_code)
    has_notes = (folder / "generation_config.json").is_file()
    return Base(
        folder=folder,
        dtype=str(dtype).removeprefix("torch."),
        positions=rope.context_of(model_config),
        vocabulary=model_config.get_text_config().vocab_size,
        n_gpus=max(1, torch.cuda.device_count()),
        seed=secrets.randbelow(2**31),
        generation_config=GenerationConfig.from_pretrained(str(folder)) if has_notes else None,
    )


def check_tokens(base: Base, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses tokens that the folder's model has no rows for: only our own loader adds some.

    Raises:
        ModelError: there are such tokens.
    """
    if len(tokenizer) > base.vocabulary:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens, the model in {base.folder} {base.vocabulary} rows for them; "
            "export the model with its new tokens first, or set infer_backend: huggingface"
        )
