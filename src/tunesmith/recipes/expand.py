"""`tunesmith expand`: a model with added blocks, written, read back, and shown to answer bit for bit as its base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import log
from tunesmith.core.errors import ModelError

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = log.get_logger(__name__)
_COPIED = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
"""Files beside the weights that go along: tokenizer, templates, code of the model."""


def run(config: RunConfig) -> Path:
    """Adds `num_expand` blocks to `model_name_or_path` and writes `output_dir`.

    Returns:
        The folder.

    Raises:
        ModelError: the model cannot be expanded without changing its answers.
        ExportError: the folder is in use, or what was written is damaged.
    """
    import torch

    from tunesmith.models.expand import expand
    from tunesmith.models.export.verify import (
        FP32_TOLERANCE,
        HALF_TOLERANCE,
        check_files,
        distance,
        logits_of,
        probe_prompts,
        reopen,
    )
    from tunesmith.models.export.writer import check_target, staged, write_weights
    from tunesmith.models.hub import resolve_model
    from tunesmith.models.load import load_base, stored_dtype
    from tunesmith.models.tokenizer import load_tokenizer

    target = Path(str(config.output_dir)).expanduser()
    base = resolve_model(
        config.model_name_or_path or "",
        revision=config.model_revision,
        cache_dir=config.cache_dir,
        token=config.hf_hub_token,
    )
    check_target(target, [base.path], config.overwrite_output_dir, keys=("output_dir", "overwrite_output_dir"))
    dtype = stored_dtype(base.path)
    tokenizer = load_tokenizer(config)
    model: Any = load_base(config, base.path, dtype, "eager").eval()
    texts, ids = probe_prompts(tokenizer, model.get_input_embeddings().weight.shape[0])
    before = logits_of(model, texts + ids)
    numbers = expand(model, config.num_expand or 0)
    if any(not torch.equal(*pair) for pair in zip(before, logits_of(model, texts + ids), strict=True)):
        raise ModelError(
            "the expanded model does not answer bit for bit as its base: blocks of this architecture add something "
            "although their output projections are zero; nothing was written"
        )
    with staged(target) as folder:
        write_weights(model, folder, dtype=dtype, shard_gb=config.export_size)
        for file in base.path.iterdir():
            if file.suffix in _COPIED and not file.name.endswith(".index.json") and not (folder / file.name).exists():
                shutil.copy2(file, folder / file.name)
        del model
        check_files(folder, dtype)
        written = reopen(folder, dtype, config.trust_remote_code, "eager")
        # Weights lie elsewhere in memory now, so sums may be rounded otherwise.
        drift = distance(before, logits_of(written, texts + ids))
        largest = max(float(logits.abs().max()) for logits in before)
        if not drift <= (HALF_TOLERANCE if dtype != torch.float32 else FP32_TOLERANCE) * max(1.0, largest):
            raise ModelError(f"the written model answers otherwise than its base (logits differ by {drift:.3g})")
    _logger.info("expanded by %d blocks (%s): %s", len(numbers), ", ".join(map(str, numbers)), target)
    _logger.info("train them alone with finetuning_type: freeze and use_llama_pro: true")
    return target
