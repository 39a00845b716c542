"""Tells one model from another, so that answers of one are not gone on with by the next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_MODEL_KEYS = (
    "infer_backend", "infer_dtype", "flash_attn", "rope_scaling",
    "quantization_bit", "quantization_method", "quantization_type", "double_quantization",
)  # fmt: skip
"""Keys beside the weights that decide what a model answers."""


def stored_digest(config: RunConfig) -> str:
    """Tells one model from another by its files, whatever engine holds it."""
    from tunesmith.models.hub import resolve_adapter, resolve_model
    from tunesmith.models.provenance import fingerprint

    cache, token = config.cache_dir, config.hf_hub_token
    name, revision = config.model_name_or_path or "", config.model_revision
    model = resolve_model(name, revision=revision, cache_dir=cache, token=token)
    adapters = [resolve_adapter(name, cache_dir=cache, token=token) for name in config.adapter_name_or_path]
    files = [fingerprint(path) for path in (model.path, *adapters)]
    return json.dumps([files, {name: getattr(config, name) for name in _MODEL_KEYS}])
