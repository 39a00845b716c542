"""One SGLang for all tests on it, where there is a GPU. Nobody has seen it run yet: this machine had none."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.inference import vllm_real

from tunesmith.config.schema import RunConfig
from tunesmith.inference.opening import open_model
from tunesmith.inference.sglang import SglangEngine

KEYS = {
    "model_name_or_path": "smollm2-135m",
    "template": "smollm2",
    "infer_backend": "sglang",
    "infer_dtype": "float32",
    "sglang_maxlen": 128,
}
model = vllm_real.model


@cache
def opened(slots: int) -> Any:
    return open_model(RunConfig.from_dict(KEYS, command="api"), batch_size=slots, keep_apart=True)


def engine(slots: int, decode: Any) -> SglangEngine:
    """An SGLang with so many slots, in our hands anew."""
    first: SglangEngine = opened(slots).engine
    first._decode = decode
    first._prompt_tokens = first._cached_tokens = first._generated = 0
    return first
