"""What engines can and cannot: each rule with what breaks it and what holds."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import engine_rules
from tunesmith.config.schema import RunConfig

PREDICTS = {"do_predict": True, "predict_with_generate": True}


def faults(command: str, **keys: Any) -> list[str]:
    config = RunConfig.from_dict({"model_name_or_path": "m", **keys}, command=command)
    return [fault.what for commands, rule in engine_rules.RULES if command in commands for fault in rule(config)]


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_beams", 2),
        ("use_kv_cache", False),
        ("prompt_lookup_num_tokens", 3),
        ("assistant_model", "small"),
        ("flash_attn", "fa2"),
        ("add_tokens", ["<a>"]),
    ],
)
def test_keys_of_ours_act_on_no_other_engine(backend: str, key: str, value: Any) -> None:
    (what,) = faults("api", infer_backend=backend, **{key: value})
    assert what == f"{key} has no effect with infer_backend {backend}"
    assert faults("api", **{key: value}) == []
    assert faults("train", infer_backend=backend, **{key: value}) == []
    assert len(faults("train", infer_backend=backend, **PREDICTS, **{key: value})) == 1


def test_defaults_act_on_every_engine() -> None:
    assert faults("api", infer_backend="vllm", num_beams=1, use_kv_cache=True) == []
    assert faults("train", infer_backend="vllm", eval_num_beams=1, **PREDICTS) == []


def test_the_model_in_memory_answers_through_our_engine() -> None:
    (what,) = faults("train", infer_backend="vllm", do_train=True, **PREDICTS)
    assert "cannot answer with the model that this run has in memory" in what
    assert faults("train", infer_backend="vllm", do_train=True) == []
    assert faults("train", infer_backend="vllm", do_train=True, stage="ppo") == [what]


def test_one_drafts_and_not_for_beams() -> None:
    (what,) = faults("chat", prompt_lookup_num_tokens=3, assistant_model="small")
    assert "exclude each other" in what
    assert faults("chat", prompt_lookup_num_tokens=3, num_beams=2) == [
        "prompt_lookup_num_tokens is not for beam search"
    ]
    assert faults("train", assistant_model="small", eval_num_beams=2) == ["assistant_model is not for beam search"]
    assert faults("train", assistant_model="small", num_beams=2, eval_num_beams=1) == []


def test_an_adapter_is_named_once() -> None:
    (what,) = faults("api", adapter_name_or_path=["a", "b", "a"])
    assert what == "adapter_name_or_path names a more than once"
    assert faults("api", adapter_name_or_path=["a", "b"]) == []
