"""What is accepted acts: a key of a run changes what it does, is refused with a reason, or says that it does nothing.

A key is in ACTS (three steps on a tiny model come out otherwise), in AWAY (refused on a machine without GPU), in SAID
(it shows in the log), in HANDED_ON (transformers' arguments hold it), in UNSEEN with the reason, set by a test of its
own, or its note says what is left of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.core.runs import Run
from tunesmith.models import dtype
from tunesmith.recipes.predict import sampling_of
from tunesmith.recipes.train import run, set_up
from tunesmith.training.arguments import training_arguments

Outcome = Callable[..., str]

TEXTS = [{"text": f"the quick brown fox {n} jumps over the lazy dog " * (n % 3 + 1)} for n in range(9)]
TALKS = [{"instruction": f"say {n}", "output": f"the fox says {n} " * (n % 3 + 1)} for n in range(9)]
PAIRS = [
    {"prompt": f"say {n}", "chosen": "the fox " * (n % 3 + 1), "rejected": "a dog " * (n % 2 + 1)} for n in range(9)
]
MARKS = [{"prompt": f"say {n}", "completion": f"the fox {n}", "label": n % 2 == 0} for n in range(9)]
DATA = {"pt": TEXTS, "sft": TALKS, "rm": PAIRS, "dpo": PAIRS, "kto": MARKS, "ppo": TALKS, "grpo": TALKS}
SCORE = """
def score(completions):
    return [text.count("a") + 0.1 * len(text) for text in completions]


def vowels(completions):
    return [sum(text.count(letter) for letter in "eiou") for text in completions]
"""
LOUD = 0.2
"""Deviation of random weights: with the usual 0.02 what an adapter says would be lost in rounding."""

FULL = {"finetuning_type": "full"}
FREEZE = {"finetuning_type": "freeze", "freeze_trainable_layers": 2}
OFT = {"finetuning_type": "oft", "oft_block_size": 8}
LOOK = {"val_size": 3, "eval_strategy": "steps", "eval_steps": 1}
ANSWERED = {"reward_funcs": "json_valid,{folder}/my.py:score", "max_new_tokens": 6, "learning_rate": 3e-2}
GRPO = ANSWERED | {"stage": "grpo", "num_generations": 3}
AGAIN = GRPO | {"grpo_epochs": 2}
PPO = ANSWERED | {"stage": "ppo", "ppo_epochs": 2}
RM = {"stage": "rm", "is_whole": True}
DPO, KTO = {"stage": "dpo"}, {"stage": "kto"}
GALORE = FULL | {"use_galore": True, "galore_rank": 4}
APOLLO = FULL | {"use_apollo": True, "apollo_rank": 4}
BADAM = FULL | {"use_badam": True, "badam_switch_interval": 1}
SHARE = FULL | {"use_badam": True, "badam_mode": "ratio", "badam_update_ratio": 0.3, "badam_switch_interval": 1}
JUDGED = GRPO | {"reward_funcs": [], "reward_model": "{folder}/judge", "reward_model_type": "full"}
FOUR = {"quantization_bit": 4}

ACTS: dict[str, tuple[dict[str, Any], Any]] = {
    # what is learned
    "stage": (DPO, "rm"),
    "use_dft_loss": ({}, True),
    "use_eaft_loss": ({}, True),
    "eaft_alpha": ({"use_eaft_loss": True}, 0.3),
    "use_asft_loss": ({"use_dft_loss": False}, True),
    "asft_alpha": ({"use_asft_loss": True}, 2.0),
    "compute_accuracy": (LOOK, True),
    "label_smoothing_factor": ({}, 0.2),
    "micro_batch_tokens": ({}, 64),
    # which weights move
    "finetuning_type": ({}, "full"),
    "lora_rank": ({}, 2),
    "lora_alpha": ({}, 3),
    "lora_dropout": ({}, 0.5),
    "lora_target": ({}, "q_proj"),
    "additional_target": ({}, "norm"),
    "use_rslora": ({}, True),
    "use_dora": ({}, True),
    "loraplus_lr_ratio": ({}, 8),
    "pissa_init": ({}, True),
    "pissa_iter": ({"pissa_init": True}, 1),
    "loftq_init": (FOUR, True),
    "quantization_bit": ({}, 8),
    "quantization_method": (FOUR, "hqq"),
    "quantization_type": (FOUR, "fp4"),
    "double_quantization": (FOUR, False),
    "freeze_trainable_layers": (FREEZE, -1),
    "freeze_trainable_modules": (FREEZE, "self_attn"),
    "freeze_extra_modules": (FREEZE, "norm"),
    "oft_rank": ({"finetuning_type": "oft"}, 4),
    "oft_block_size": (OFT, 16),
    "oft_target": (OFT, "q_proj"),
    "module_dropout": (OFT, 0.5),
    "train_from_scratch": (FULL, True),
    "mixture_of_depths": (FULL, "convert"),
    # aids and precision
    "neftune_noise_alpha": ({}, 5.0),
    "shift_attn": ({}, True),
    "rope_scaling": ({"cutoff_len": 600}, "yarn"),
    "flash_attn": ({}, "disabled"),
    "dtype": (FULL, "bfloat16"),
    "bf16": ({}, True),
    "upcast_layernorm": ({"dtype": "bfloat16"}, True),
    "bf16_full_eval": (LOOK, True),
    "fp16_full_eval": (LOOK, True),
    # preferences
    "pref_beta": (DPO, 0.7),
    "pref_ftx": (DPO, 0.5),
    "pref_bco_weight": (DPO, 0.5),
    "pref_loss": (DPO, "hinge"),
    "dpo_label_smoothing": (DPO, 0.3),
    "ld_alpha": (DPO, 0.2),
    "simpo_gamma": (DPO | {"pref_loss": "simpo"}, 1.5),
    "kto_chosen_weight": (KTO, 0.3),
    "kto_rejected_weight": (KTO, 0.3),
    "ref_model": (DPO, "{other}"),
    "ref_model_quantization_bit": (DPO | {"ref_model": "{other}"}, 4),
    # answers
    "reward_funcs": (GRPO, "length:3,{folder}/my.py:score"),
    "reward_model": (JUDGED, "{folder}/other-judge"),
    "reward_model_adapters": (JUDGED, "{folder}/judge-adapter"),
    "reward_model_quantization_bit": (JUDGED, 4),
    "reward_weights": (GRPO | {"reward_funcs": "{folder}/my.py:score,{folder}/my.py:vowels"}, "1,-4"),
    "num_generations": (GRPO, 2),
    "grpo_beta": (GRPO, 2.0),
    "grpo_epochs": (GRPO, 2),
    "grpo_clip": (AGAIN, 0.001),
    "grpo_clip_high": (AGAIN, 0.001),
    "grpo_scale_rewards": (GRPO, "none"),
    "ppo_epochs": (PPO, 1),
    "ppo_buffer_size": (PPO, 2),
    "ppo_score_norm": (PPO, True),
    "ppo_target": (PPO | {"ppo_target": 1e9}, 1e-6),
    "ppo_kl_weight": (PPO, 5.0),
    "ppo_whiten_rewards": (PPO, True),
    "temperature": (GRPO, 0.5),
    "top_p": (GRPO, 0.5),
    "top_k": (GRPO, 2),
    "max_new_tokens": (GRPO, 3),
    # optimizers
    "use_galore": (FULL, True),
    "galore_target": (GALORE, "mlp"),
    "galore_rank": (GALORE, 8),
    "galore_update_interval": (GALORE, 1),
    "galore_scale": (GALORE, 0.5),
    "galore_proj_type": (GALORE, "reverse_std"),
    "use_apollo": (FULL, True),
    "apollo_target": (APOLLO, "mlp"),
    "apollo_rank": (APOLLO, 8),
    "apollo_update_interval": (APOLLO, 1),
    "apollo_scale": (APOLLO, 4.0),
    "apollo_proj": (APOLLO, "svd"),
    "apollo_proj_type": (APOLLO | {"apollo_scale_type": "tensor"}, "left"),
    "apollo_scale_type": (APOLLO, "tensor"),
    "apollo_scale_front": (APOLLO, True),
    "use_badam": (FULL, True),
    "badam_mode": (BADAM, "ratio"),
    "badam_start_block": (BADAM, 1),
    "badam_switch_mode": (BADAM, "descending"),
    "badam_switch_interval": (BADAM, 2),
    "badam_update_ratio": (SHARE, 0.6),
    "badam_mask_mode": (SHARE, "scatter"),
    "use_adam_mini": (FULL, True),
    "use_muon": (FULL, True),
    "optim": (FULL, "lomo"),
    "optim_args": (FULL | {"optim": "sgd"}, "momentum=0.9"),
    "optim_target_modules": (FULL | {"optim": "galore_adamw", "optim_target_modules": "all-linear"}, "mlp"),
    "learning_rate": ({}, 1e-3),
    "weight_decay": ({}, 0.5),
    "max_grad_norm": ({}, 1e-3),
    "lr_scheduler_type": ({}, "constant"),
    "warmup_steps": ({}, 2),
    "warmup_ratio": ({}, 0.9),
    "adam_beta1": ({}, 0.5),
    "adam_beta2": ({}, 0.5),
    "adam_epsilon": ({}, 0.1),
    # the run
    "seed": ({}, 7),
    "data_seed": ({}, 7),
    "max_steps": ({}, 2),
    "per_device_train_batch_size": ({}, 3),
    "gradient_accumulation_steps": ({}, 2),
    "train_sampling_strategy": ({}, "sequential"),
    "disable_shuffling": ({}, True),
    # rows
    "cutoff_len": ({}, 16),
    "max_samples": ({}, 4),
    "train_on_prompt": ({}, True),
    "packing": ({}, True),
    "default_system": ({}, "You are a fox."),
}
"""Key -> keys beside it, and a value; `{folder}` and `{other}` (another model) are filled in."""

AWAY: dict[str, tuple[dict[str, Any], Any, str]] = {
    "use_unsloth": ({}, True, "unsloth"),
    "enable_liger_kernel": ({}, True, "liger"),
    "use_liger_kernel": ({}, True, "liger"),
    "fp8": ({}, True, "needs a GPU that multiplies 8-bit floats"),
    "fp8_backend": ({}, "te", "torchao alone"),
    "pure_bf16": ({}, True, "pure_bf16"),
    "moe_aux_loss_coef": ({}, 0.1, "moe_aux_loss_coef"),
    "tf32": ({}, True, "tf32"),
    "quantization_device_map": (FOUR, "auto", "is not for training"),
}
"""Key -> keys beside it, a value, and what the refusal says."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Iterator[Outcome]:
    """What three steps with some keys come to, as a digest of log, plan and weights; each set of keys runs once."""
    folder = tmp_path_factory.mktemp("every-key")
    for name, seed in (("tiny", 0), ("other", 5)):
        make_tiny_llama(seed, initializer_range=LOUD).save_pretrained(folder / name)
        tiny_tokenizer.save_pretrained(folder / name)
    for stage, rows in DATA.items():
        (folder / f"{stage}.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "my.py").write_text(SCORE, encoding="utf-8")
    known: dict[str, str] = {}

    def find(**keys: Any) -> str:
        text = (
            json.dumps(keys, sort_keys=True).replace("{folder}", str(folder)).replace("{other}", str(folder / "other"))
        )
        if text not in known:
            known[text] = come_to(folder, f"run-{len(known)}", json.loads(text))
        return known[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_HOME", str(folder / "home"))
        patch.setattr(dtype, "has_bf16_units", lambda: True)
        for seed, name in enumerate(("judge", "other-judge")):
            come_to(folder, name, RM | FULL | {"seed": seed})
        come_to(folder, "judge-adapter", RM | {"model_name_or_path": str(folder / "judge")})
        yield find


def come_to(folder: Path, name: str, keys: dict[str, Any]) -> str:
    settings = {
        "model_name_or_path": str(folder / "tiny"),
        "dataset": str(folder / f"{keys.get('stage', 'sft')}.json"),
        "template": "chatml",
        "force_template": True,
        "output_dir": str(folder / name),
        "do_train": True,
        "use_cpu": True,
        "cutoff_len": 48,
        "lora_rank": 4,
        "micro_batch_tokens": 512,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    is_whole = keys.pop("is_whole", False)
    config = RunConfig.from_dict(settings | keys, rules=True)
    if is_whole:
        run(config)
        return ""
    trainer = set_up(config, Run(folder / name)).trainer
    trainer.train()
    found = hashlib.sha256(repr((plan(trainer), log(trainer))).encode())
    for name, weight in sorted(trainer.model.named_parameters()):
        found.update(name.encode() + weight.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def plan(trainer: Any) -> list[object]:
    """What does not show in weights of floats: kinds of layers, what is trained, the cut."""
    model = trainer.model
    kinds = sorted({type(module).__name__ for module in model.modules()})
    trained = sorted(name for name, weight in model.named_parameters() if weight.requires_grad)
    return [kinds, trained, trainer.token_budget, model.config._attn_implementation]


def log(trainer: Any) -> list[dict[str, Any]]:
    timed = ("runtime", "per_second", "seconds", "flos")
    return [
        {name: value for name, value in entry.items() if not any(word in name for word in timed)}
        for entry in trainer.state.log_history
    ]


@pytest.mark.parametrize("name", ACTS)
def test_it_acts(outcome: Outcome, name: str) -> None:
    beside, value = ACTS[name]
    assert KEYS[name].default != value or name in beside, "the value must be another one"
    assert outcome(**(beside | {name: value})) != outcome(**beside)


def test_the_same_keys_come_to_the_same(outcome: Outcome) -> None:
    assert outcome() == outcome(seed=KEYS["seed"].default) == outcome(lora_alpha=8)


@pytest.mark.parametrize("name", AWAY)
def test_it_is_refused_here_with_its_reason(outcome: Outcome, name: str) -> None:
    beside, value, message = AWAY[name]
    with pytest.raises(TunesmithError, match=message):
        outcome(**(beside | {name: value}))


HANDED_ON: dict[str, Any] = {
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "torch_empty_cache_steps": 3,
    "dataloader_drop_last": True,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3,
    "dataloader_num_workers": 3,
    "accelerator_config": {"even_batches": False},
    "full_determinism": True,
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "ddp_bucket_cap_mb": 7,
    "logging_strategy": "epoch",
    "logging_first_step": True,
    "log_on_each_node": False,
    "log_level_replica": "info",
    "include_num_input_tokens_seen": "all",
    "project": "mine",
    "trackio_space_id": "me/here",
    "trackio_bucket_id": "me/bucket",
    "trackio_static_space_id": "me/still",
    "debug": "underflow_overflow",
    "skip_memory_metrics": False,
    "eval_delay": 3,
    "save_only_model": True,
    "save_on_each_node": True,
    "greater_is_better": True,
}
"""Keys that no test of ours sets: transformers does what they say. A value for each."""

SAID: dict[str, tuple[dict[str, Any], Any, str]] = {
    "print_param_status": ({}, True, "lora_A.default.weight"),
    "fp16": ({}, True, "fp16 was asked for"),
    "badam_verbose": (BADAM, 1, "badam: step"),
}
"""Keys that act in the log alone: keys beside them, a value, and what is said."""

UNSEEN = {
    "model_revision": "needs a hub with two revisions of a model",
    "liger_kernel_config": "needs an NVIDIA GPU, as enable_liger_kernel does",
}
"""Keys that nothing here shows, and why."""

HERE = {"eval_num_beams", "include_effective_tokens_per_second"}
"""Keys with a test of their own below."""


@pytest.mark.parametrize("name", HANDED_ON)
def test_transformers_arguments_hold_it(name: str, tmp_path: Path) -> None:
    value = HANDED_ON[name]
    beside = {"dataloader_num_workers": 2} if name.startswith("dataloader_") else {}
    settings = {"output_dir": str(tmp_path), "do_train": True, "use_cpu": True, "logging_steps": 5} | beside
    before, after = (
        getattr(training_arguments(RunConfig.from_dict(settings | keys), autocast=None), name)
        for keys in ({}, {name: value})
    )
    assert repr(after) != repr(before)
    assert str(value).strip("{}").replace("'", "").split(":")[0] in repr(after).replace("'", "")


def test_beams_of_prediction() -> None:
    assert sampling_of(RunConfig.from_dict({"eval_num_beams": 3})).num_beams == 3


def test_speed_is_reported_where_it_is_asked_for(outcome: Outcome, tmp_path: Path) -> None:
    for name, asks in (("plain", False), ("asked", True)):
        outcome(include_effective_tokens_per_second=asks, output_dir=str(tmp_path / name), is_whole=True)
        results = json.loads((tmp_path / name / "train_results.json").read_text(encoding="utf-8"))
        assert ("effective_tokens_per_sec" in results) == asks


def test_every_key_has_a_place() -> None:
    here = Path(__file__)
    folders = [path for path in here.parents[1].iterdir() if path.is_dir() and path.name not in ("config", "cli")]
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py") if path != here]

    def is_set_in_a_test(name: str) -> bool:
        return any(re.search(rf"\b{name}\b[\"']?\s*[:=]", text) for text in texts)

    built = [key for key in KEYS.values() if "train" in key.commands and not key.not_yet]
    assert len(built) > 250
    tables = (ACTS, AWAY, HANDED_ON, UNSEEN, SAID)
    places = {name for table in tables for name in table} | HERE
    left = [key.name for key in built if not (key.name in places or key.note or is_set_in_a_test(key.name))]
    assert not left, left
    assert sorted(places - {key.name for key in built}) == []
    assert sum(map(len, tables)) + len(HERE) == len(places), "one place is enough"


@pytest.mark.parametrize("name", SAID)
def test_it_is_said(outcome: Outcome, name: str, caplog: pytest.LogCaptureFixture) -> None:
    beside, value, words = SAID[name]
    with caplog.at_level(logging.INFO, logger="tunesmith"):
        outcome(**beside, run_name="silent")
        assert words not in caplog.text
        outcome(**(beside | {name: value}))
    assert words in caplog.text
