"""A GGUF file made into a transformers folder, once, kept in our cache. Which file to take is hub.py's business."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging as hf_logging

from tunesmith.core import log
from tunesmith.core.errors import ModelError
from tunesmith.core.runs import sync_tree, write_json
from tunesmith.models import cache, end_token

_PROBE = "The capital of France is Paris.\nIt has 2 million people, naïve café 你好."
_logger = log.get_logger(__name__)


def size_text(n_bytes: int) -> str:
    """Bytes for people: `538 MB`, `1.2 GB`."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def file_sha256(file: Path) -> str:
    """The sha256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def convert(file: Path, *, name: str) -> Path:
    """Converts a GGUF file, or finds the copy that an earlier call made of the same bytes.

    The weights are dequantised in float32 and written in the smallest of bfloat16, float16 and float32 that holds
    every value exactly. The folder appears under its name only when it is complete and was read back.

    Args:
        file: the `.gguf` file.
        name: what the user called the model; later runs find the copy by it.

    Returns:
        The folder, as transformers' `save_pretrained` lays it out.

    Raises:
        ModelError: the file is no GGUF file, of an architecture that transformers cannot convert, or incomplete.
    """
    known = cache.find_converted(file)
    if known is not None:
        return known
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", file.name):
        raise ModelError(f"{file}: this is one part of a split GGUF; join the parts first (llama-gguf-split --merge)")
    sha256 = file_sha256(file)
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", file.stem).strip("-").lower()
    same = sorted(cache.folder().glob(f"*-{sha256[:12]}/{cache.RECORD_FILE}"))
    target = same[0].parent if same else cache.folder() / f"{stem}-{sha256[:12]}"
    if not (target / cache.RECORD_FILE).is_file():
        _convert_into(file, target, {"name": name, "source": str(file), "sha256": sha256})
    cache.remember(file, target)
    return target


def _convert_into(file: Path, target: Path, record: dict[str, Any]) -> None:
    _logger.info("converting %s (%s) to safetensors, once ...", file.name, size_text(file.stat().st_size))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        with _quiet():
            model, tokenizer = _load(file)
            changes = _mend(model, tokenizer, record["name"])
            logits = _probe_logits(model, tokenizer, file)
            dtype = _smallest_exact_dtype(model)
            model.to(dtype).save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            del model
            _check_written(temporary, tokenizer, logits)
        size = sum(path.stat().st_size for path in temporary.glob("*.safetensors"))
        record |= {"dtype": str(dtype).removeprefix("torch."), "bytes": size, "changes": changes}
        write_json(temporary / cache.RECORD_FILE, record | {"source_key": cache.source_key(file)})
        sync_tree(temporary)
        _move(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for change in changes:
        _logger.info("%s: %s", file.name, change)
    _logger.info("kept in %s (%s, %s)", target, size_text(size), record["dtype"])


def _move(temporary: Path, target: Path) -> None:
    """Renames; when another process was faster, its equal folder stays."""
    if target.exists() and not (target / cache.RECORD_FILE).is_file():
        shutil.rmtree(target)
    try:
        temporary.rename(target)
    except OSError:
        if not (target / cache.RECORD_FILE).is_file():
            raise


def _load(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with file.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError(f"{file}: not a GGUF file (it does not begin with 'GGUF'); a broken download?")
    folder = str(file.parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError, IndexError) as error:
        raise ModelError(f"{file}: transformers cannot convert this GGUF file: {error}") from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:5])
        raise ModelError(f"{file}: {len(info['missing_keys'])} of the architecture's weights are missing: {names}")
    # What is in memory are plain float32 weights now: nothing of the quantised file is left to be declared.
    model.hf_quantizer = None
    del model.config.quantization_config
    return model.eval(), tokenizer


def _mend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    """Sets end and pad tokens in tokenizer, config and generation config; returns what was changed."""
    ends, said_end = end_token.mend_end_token(tokenizer)
    said_pad = end_token.mend_pad_token(tokenizer, ends)
    model.config.__dict__.pop("_model_name_or_path", None)
    model.config.name_or_path = name
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return [said for said in (said_end, said_pad) if said]


@torch.no_grad()
def _probe_logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path | None = None) -> torch.Tensor:
    ids = tokenizer(_PROBE, return_tensors="pt")["input_ids"]
    logits: torch.Tensor = model(ids).logits
    if file is not None and not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{file}: the converted model computes values that are not finite; the file is damaged")
    return logits


def _smallest_exact_dtype(model: PreTrainedModel) -> torch.dtype:
    """bfloat16 or float16 when every weight survives the way there and back, else float32."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).float(), weight) for weight in model.state_dict().values()):
            return dtype
    return torch.float32


def _check_written(folder: Path, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor) -> None:
    """Reads the folder back: the tokenizer goes there and back, the weights compute the same."""
    again = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    if again(_PROBE, add_special_tokens=False)["input_ids"] != ids or again.eos_token_id != tokenizer.eos_token_id:
        raise ModelError(f"the tokenizer out of the GGUF file does not survive being saved ({folder})")
    if tokenizer.decode(ids).strip() != _PROBE:
        raise ModelError(f"the tokenizer out of the GGUF file does not round-trip: {tokenizer.decode(ids)!r}")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if not torch.equal(_probe_logits(model, again), logits):
        raise ModelError(f"the converted weights do not compute the same once written ({folder})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' bars and loading remarks off the terminal: we say in two lines what happens."""
    gguf_bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = functools.partial(gguf_bar, disable=True)
    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = gguf_bar
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
