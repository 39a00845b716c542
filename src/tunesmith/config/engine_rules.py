"""What must hold between the keys of answering: engines and what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig

_EXPORT = "put it into the model with tunesmith export first"
_OURS_ALONE = {
    "num_beams": "leave it out",
    "eval_num_beams": "leave it out",
    "use_kv_cache": "leave it out",
    "prompt_lookup_num_tokens": "set the engine's own drafting in vllm_config or sglang_config",
    "assistant_model": "set the engine's own drafting in vllm_config or sglang_config",
    "flash_attn": "set the engine's own attention in vllm_config or sglang_config",
    "quantization_bit": "name a model that is stored quantised",
    "rope_scaling": "set it in vllm_config or sglang_config",
    "add_tokens": _EXPORT,
    "add_special_tokens": _EXPORT,
    "new_special_tokens_config": _EXPORT,
}
"""Keys that other engines than ours do not follow, and what to do."""


def engine_can(config: RunConfig) -> Iterator[Fault]:
    """Keys of the transformers engine act on no other."""
    if config.infer_backend == "huggingface" or _answers_not(config):
        return
    for name, fix in _OURS_ALONE.items():
        value = getattr(config, name)
        if value != KEYS[name].default and not (name in ("num_beams", "eval_num_beams") and value == 1):
            what = f"{name} has no effect with infer_backend {config.infer_backend}"
            yield Fault((name, "infer_backend"), what, f"{fix}, or set infer_backend: huggingface")


def _answers_not(config: RunConfig) -> bool:
    return config.command == "train" and not config.do_predict


def trained_model_answers_here(config: RunConfig) -> Iterator[Fault]:
    """The model that is trained is in our memory, where other engines cannot reach it."""
    if config.infer_backend == "huggingface" or not config.do_train:
        return
    what = f"infer_backend {config.infer_backend} cannot answer with the model that this run has in memory"
    if config.do_predict:
        fix = "predict in a second run without do_train, or set infer_backend: huggingface"
        yield Fault(("infer_backend", "do_predict", "do_train"), what, fix)
    elif config.stage in ("ppo", "grpo"):
        yield Fault(("infer_backend", "stage"), what, "set infer_backend: huggingface")


def one_who_drafts(config: RunConfig) -> Iterator[Fault]:
    """Either the text or a model guesses ahead, token by token."""
    askers = [name for name in ("prompt_lookup_num_tokens", "assistant_model") if getattr(config, name)]
    if len(askers) > 1:
        yield Fault(tuple(askers), "prompt_lookup_num_tokens and assistant_model exclude each other", "keep one")
    beams = "eval_num_beams" if config.command == "train" and config.eval_num_beams else "num_beams"
    if askers and (getattr(config, beams) or 1) > 1:
        yield Fault((askers[0], beams), f"{askers[0]} is not for beam search", f"leave {askers[0]} or {beams} out")


def adapters_differ(config: RunConfig) -> Iterator[Fault]:
    """The same adapter twice is a slip: its effect would be doubled."""
    names = config.adapter_name_or_path
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(("adapter_name_or_path",), f"adapter_name_or_path names {name} more than once", "name it once")


RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (KEYS["infer_backend"].commands, engine_can),
    (("train",), trained_model_answers_here),
    (KEYS["assistant_model"].commands, one_who_drafts),
    (KEYS["adapter_name_or_path"].commands, adapters_differ),
)
"""The commands that a rule is for, and the rule."""
