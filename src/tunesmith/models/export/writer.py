"""Writing a merged model as a folder that transformers, vLLM and Ollama open: weights, tokenizer, end tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tunesmith.core import log
from tunesmith.core.errors import ExportError
from tunesmith.core.machine import nearest_existing
from tunesmith.core.runs import sync_tree, write_json

_logger = log.get_logger(__name__)


def check_target(
    folder: Path,
    sources: list[Path],
    overwrite: bool,
    keys: tuple[str, str] = ("export_dir", "overwrite_export"),
) -> None:
    """Refuses a target that would lose something.

    Args:
        folder: `export_dir`.
        sources: base and adapter folders.
        overwrite: `overwrite_export`.
        keys: names of the two keys, for messages.

    Raises:
        ExportError: with what to do.
    """
    for source in sources:
        if folder.resolve() == source.resolve() or folder.resolve() in source.resolve().parents:
            raise ExportError(f"{keys[0]}: {folder} holds {source}, which is read here; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{keys[0]}: {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ExportError(f"{keys[0]}: {folder} is not empty; choose another, or set {keys[1]}: true")


def check_room(folder: Path, base: Path, growth: float) -> None:
    """Refuses a disk that the weights do not fit on, before the merge instead of after it.

    Args:
        folder: `export_dir`.
        base: folder of the model that is merged into.
        growth: bytes that one byte of its weights becomes.

    Raises:
        ExportError: with what is needed and what is free.
    """
    stored = [file.stat().st_size for kind in ("*.safetensors", "pytorch_model*.bin") for file in base.glob(kind)]
    needed, free = sum(stored) * growth, shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise ExportError(
            f"export_dir {folder}: the weights need {needed / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free; "
            "free some space, or choose another disk"
        )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary sibling that takes the name of `folder` when the block ends well, and vanishes when it does not."""
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.export.tmp")
    old = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _open_to_readers(temporary)
        sync_tree(temporary)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Gives files the rights of the folder: safetensors writes for the owner alone, and servers run as others."""
    rights = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(rights)


def set_end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, end_ids: tuple[int, ...]) -> None:
    """Makes every reader of the folder stop where the template stops: all end tokens in the generation config."""
    generation: GenerationConfig = model.generation_config
    generation.eos_token_id = list(end_ids)
    generation.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = list(end_ids) if len(end_ids) > 1 else end_ids[0]
    model.config.pad_token_id = tokenizer.pad_token_id
    if not generation.do_sample and _samples(generation):
        # Some bases ship sampling values with do_sample off; transformers refuses to write that.
        generation.do_sample = True


def _samples(generation: GenerationConfig) -> bool:
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "typical_p": 1.0}
    return any(getattr(generation, name, None) not in (value, None) for name, value in neutral.items())


def write_weights(model: Any, folder: Path, *, dtype: torch.dtype, shard_gb: int) -> None:
    """Casts once and writes safetensors shards."""
    model.config.use_cache = True
    model.to(dtype).save_pretrained(folder, max_shard_size=f"{shard_gb}GB")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the tokenizer for generation: padding on the left."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    # transformers writes the side that the tokenizer was loaded with, and two marks of where it was loaded from.
    for mark in ("is_local", "local_files_only"):
        fields.pop(mark, None)
    write_json(file, dict(sorted((fields | {"padding_side": "left"}).items())))
