"""Which bits go with which library, and what does not go on a quantised base."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.build import Checks, from_entries
from tunesmith.config.entries import Entry
from tunesmith.config.quantization_rules import BITS
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "do_train": True}
PPO = {"stage": "ppo", "reward_model": "r", "max_new_tokens": 8}
GOOD: list[tuple[str, dict[str, Any]]] = [
    *(
        ("train", {"quantization_method": method, "quantization_bit": bit})
        for method in BITS
        for bit in BITS[method][-1:]
    ),
    ("train", {"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False}),
    ("train", {"quantization_bit": 3, "quantization_method": "hqq"}),
    ("train", {"quantization_bit": 4, "use_dora": True, "adapter_name_or_path": "a"}),
    ("train", {"stage": "dpo", "ref_model_quantization_bit": 4}),
    ("train", {**PPO, "reward_model_type": "full", "reward_model_quantization_bit": 8}),
    ("train", {"quantization_method": "gptq"}),
    ("chat", {"quantization_bit": 4, "quantization_device_map": "auto"}),
    ("chat", {"quantization_bit": 4, "quantization_method": "torchao"}),
]
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("train", {"quantization_bit": 5}, "bnb has 4, 8 bits, not 5"),
    ("train", {"quantization_bit": 7, "quantization_method": "hqq"}, "bits, not 7"),
    ("chat", {"quantization_bit": 2, "quantization_method": "quanto"}, "quanto has 4, 8 bits"),
    ("train", {"quantization_bit": 8, "quantization_method": "eetq"}, "eetq has no package"),
    ("train", {"quantization_bit": 4, "quantization_method": "gptq"}, "quantised beforehand"),
    ("chat", {"quantization_bit": 4, "quantization_method": "mxfp4"}, "quantised beforehand"),
    ("train", {"quantization_bit": 4, "finetuning_type": "full"}, "goes with adapters, not with finetuning_type full"),
    ("train", {"quantization_bit": 4, "pissa_init": True}, "pissa_init"),
    ("train", {"quantization_bit": 4, "resize_vocab": True}, "exclude each other"),
    ("train", {"quantization_bit": 4, "adapter_name_or_path": "a", "create_new_adapter": True}, "merges the given"),
    ("chat", {"quantization_bit": 4, "adapter_name_or_path": "a,b"}, "merged in order"),
    ("train", {"quantization_bit": 4, "quantization_device_map": "auto"}, "not for training"),
    ("chat", {"quantization_bit": 8, "quantization_device_map": "auto"}, "is for 4 bits of bnb"),
    ("train", {"quantization_bit": 4, "quantization_method": "torchao"}, "cannot be trained on int4 weights"),
    ("train", {"quantization_bit": 4, "fp8": True}, "fp8 and quantization_bit exclude each other"),
    ("train", {"fp8": True, "fp8_backend": "te"}, "through torchao alone"),
    ("train", {"stage": "dpo", "ref_model_quantization_bit": 6}, "is 4 or 8, not 6"),
    ("train", {**PPO, "reward_model_quantization_bit": 4}, "for a reward model of type full"),
]


def load(command: str, keys: dict[str, Any]) -> RunConfig:
    settings = {**TRAIN, **keys} if command == "train" else {"model_name_or_path": "m", **keys}
    entries = [Entry(name, value) for name, value in settings.items()]
    return from_entries(entries, command, "", checks=Checks(paths=False))


@pytest.mark.parametrize(("command", "keys"), GOOD)
def test_what_goes_together_is_accepted(command: str, keys: dict[str, Any]) -> None:
    load(command, keys)


@pytest.mark.parametrize(("command", "keys", "words"), BAD)
def test_what_does_not_is_refused_with_the_reason(command: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(command, keys)
    (problem,) = caught.value.problems
    assert words in str(problem)


def test_no_method_is_accepted_and_then_left_out() -> None:
    """LLaMA-Factory takes bits with any method and quantises nothing for some."""
    for method in KEYS["quantization_method"].choices:
        accepted = []
        for bits in range(1, 9):
            try:
                load("chat", {"quantization_bit": bits, "quantization_method": method})
            except ConfigError:
                continue
            accepted.append(bits)
        assert tuple(accepted) == BITS.get(method, ())
