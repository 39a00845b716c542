"""Keys that belong to some stages or losses are refused elsewhere, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.method_rules import idle_keys
from tunesmith.config.rules import faults
from tunesmith.config.schema import RunConfig

BASE = {"model_name_or_path": "m", "output_dir": "o", "do_train": True, "dataset": "d"}


def said(**keys: Any) -> list[str]:
    return [fault.what for fault in faults(RunConfig.from_dict(BASE | keys), with_paths=False)]


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"pref_beta": 0.2}, "pref_beta is for stage dpo or kto, not sft"),
        ({"stage": "rm", "pref_loss": "ipo"}, "pref_loss is for stage dpo, not rm"),
        ({"stage": "dpo", "kto_chosen_weight": 2.0}, "kto_chosen_weight is for stage kto, not dpo"),
        ({"stage": "kto", "ld_alpha": 0.5}, "ld_alpha is for stage dpo, not kto"),
        ({"stage": "dpo", "packing": True}, "packing is for stage pt or sft, not dpo"),
        ({"stage": "pt", "neat_packing": True}, "neat_packing is for stage sft, not pt"),
        ({"stage": "dpo", "mask_history": True}, "mask_history is for stage sft, not dpo"),
        ({"stage": "kto", "label_smoothing_factor": 0.1}, "label_smoothing_factor is for stage pt or sft, not kto"),
        ({"stage": "pt", "use_dft_loss": True}, "use_dft_loss is for stage sft, not pt"),
        ({"stage": "dpo", "compute_accuracy": True}, "compute_accuracy is for stage pt or sft, not dpo"),
        (
            {"stage": "dpo", "pref_loss": "ipo", "dpo_label_smoothing": 0.1},
            "dpo_label_smoothing is for pref_loss sigmoid, not ipo",
        ),
        ({"stage": "dpo", "simpo_gamma": 1.0}, "simpo_gamma is for pref_loss simpo, not sigmoid"),
        (
            {"stage": "dpo", "pref_loss": "orpo", "pref_bco_weight": 1.0},
            "pref_bco_weight is for pref_loss sigmoid, hinge, ipo or kto_pair, not orpo",
        ),
        ({"use_dft_loss": True, "use_eaft_loss": True}, "use_dft_loss and use_eaft_loss exclude each other"),
        ({"asft_alpha": 0.5}, "asft_alpha does nothing without use_asft_loss"),
        ({"eaft_alpha": 2.0, "use_dft_loss": True}, "eaft_alpha does nothing without use_eaft_loss"),
        ({"stage": "rm", "ref_model": "r"}, "ref_model: stage rm has no reference model"),
        ({"stage": "dpo", "pref_loss": "simpo", "ref_model": "r"}, "ref_model: pref_loss simpo has no reference model"),
        (
            {"stage": "dpo", "finetuning_type": "full", "streaming": True},
            "streaming with finetuning_type full: the reference must see all rows before step 1",
        ),
        (
            {"use_asft_loss": True, "train_from_scratch": True, "finetuning_type": "full"},
            "use_asft_loss holds the run near a trained model, but train_from_scratch starts from none",
        ),
        (
            {"stage": "dpo", "do_predict": True, "eval_dataset": "e"},
            "do_predict is for stage sft (answers) and rm (scores), not dpo",
        ),
        ({"do_predict": True, "eval_dataset": "e"}, "do_predict needs predict_with_generate"),
        ({"ppo_epochs": 2}, "ppo_epochs is for stage ppo, not sft"),
        ({"stage": "dpo", "grpo_clip": 0.1}, "grpo_clip is for stage grpo, not dpo"),
        ({"stage": "rm", "reward_model_type": "full"}, "reward_model_type is for stage ppo or grpo, not rm"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], what: str) -> None:
    assert said(**keys) == [what]


@pytest.mark.parametrize(
    "keys",
    [
        {"stage": "pt", "packing": False},
        {"stage": "dpo", "packing": False, "pref_beta": 0.2, "ld_alpha": 0.3, "pref_bco_weight": 1.0},
        {"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": 1.0, "pref_ftx": 0.1},
        {"stage": "dpo", "pref_loss": "sigmoid", "dpo_label_smoothing": 0.1, "ref_model": "r"},
        {"stage": "dpo", "finetuning_type": "full", "streaming": True, "ref_model": "m"},
        {"stage": "dpo", "finetuning_type": "full", "streaming": True, "pref_loss": "orpo"},
        {"stage": "kto", "kto_rejected_weight": 0.5, "ref_model_adapters": "a"},
        {"stage": "rm", "do_predict": True, "eval_dataset": "e", "load_best_model_at_end": False},
        {"use_asft_loss": True, "asft_alpha": 0.3, "ref_model": "r"},
        {"use_eaft_loss": True, "eaft_alpha": 2.0, "compute_accuracy": True},
        {"pref_beta": 0.1, "pref_loss": "sigmoid"},
    ],
)
def test_what_acts_is_accepted(keys: dict[str, Any]) -> None:
    assert said(**keys) == []


def test_keys_of_another_finetuning_type_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """A command line may change the type over a whole file, so they are no error."""
    keys = {"lora_rank": 4, "oft_target": "q_proj", "freeze_trainable_layers": 1, "additional_target": "norm"}
    left = {
        "lora": ["oft_target", "freeze_trainable_layers"],
        "oft": ["lora_rank", "freeze_trainable_layers"],
        "freeze": ["additional_target", "lora_rank", "oft_target"],
    }
    for finetuning_type, idle in left.items():
        assert idle_keys(RunConfig.from_dict(BASE | keys | {"finetuning_type": finetuning_type})) == idle
    RunConfig.from_dict(BASE | {"finetuning_type": "full", "lora_rank": 4}, rules=True)
    assert "finetuning_type full does not use lora_rank" in caplog.text
