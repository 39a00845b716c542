"""One vLLM for all tests on it: it takes a while to start, and a process has one."""

from __future__ import annotations

from functools import cache
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.inference.opening import open_model
from tunesmith.inference.vllm import VllmEngine

KEYS = {
    "model_name_or_path": "smollm2-135m",
    "template": "smollm2",
    "infer_backend": "vllm",
    "infer_dtype": "float32",
    "vllm_maxlen": 128,
    "vllm_enforce_eager": True,
    "vllm_max_lora_rank": 16,
}


@cache
def model() -> Any:
    """What transformers makes of the same folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.models.hub import resolve_model

    return AutoModelForCausalLM.from_pretrained(
        resolve_model(KEYS["model_name_or_path"]).path, dtype=torch.float32
    ).eval()


@cache
def opened() -> Any:
    return open_model(RunConfig.from_dict(KEYS, command="api"), batch_size=8, keep_apart=True)


def engine(slots: int, decode: Any) -> VllmEngine:
    """A fresh one of ours over the vLLM that runs, which is told to work on so many answers together."""
    first = opened().engine
    llm = first._llm
    llm.abort_request(list(llm.output_processor.external_req_ids))
    while llm.has_unfinished_requests():
        llm.step()
    # How many it lets in. What it has room for (max_num_running_reqs) is as it was started.
    llm.engine_core.engine_core.scheduler.max_num_active_reqs = slots
    llm.vllm_config.scheduler_config.max_num_seqs = slots
    return VllmEngine(llm, decode=decode, constraints=first._constraints, base=first._base)
