from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.config.coerce import coerce
from tunesmith.config.schema import COMMANDS, GROUPS, KEYS, RunConfig
from tunesmith.config.schema.key import keys_of
from tunesmith.config.schema.making import Generator, LongText, Making

DATA = Path(__file__).parent / "data"
ARGUMENTS = json.loads((DATA / "known_arguments.json").read_text())
OURS = {
    "allow_untrained_rows",
    "dtype",
    "force_base",
    "assistant_model",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "prompt_lookup_num_tokens",
    "matrix_save_name",
    "micro_batch_tokens",
    "loftq_init",
    "num_expand",
    "overwrite_export",
    "eval_metrics",
    "forgetting",
    "metric_options",
    "metrics",
    "split",
    "save_name",
    "skip_bad_rows",
    "stop",
    "force_template",
    "template_compat",
    *(name for group in (LongText, Making, Generator) for name in keys_of(group)),
    "reward_funcs",
    "reward_weights",
    "ppo_kl_weight",
    "num_generations",
    *(f"grpo_{name}" for name in ("beta", "epochs", "clip", "clip_high", "loss", "scale_rewards", "mask_truncated")),
}
OUR_CHOICES = {"quantization_method": {"torchao"}, "stage": {"grpo"}}


def as_facts(value: object) -> object:
    """Our default as the facts write it: lists with commas between, nothing for an empty one."""
    return (",".join(value) or None) if isinstance(value, tuple) else value


def test_every_known_argument_is_a_key_and_no_other_is() -> None:
    assert {fact["name"] for fact in ARGUMENTS} | OURS == set(KEYS)
    assert len(ARGUMENTS) > 380


def test_defaults_and_choices_are_those_users_know() -> None:
    for fact in ARGUMENTS:
        known = KEYS[fact["name"]]
        expected = None if fact["default"] == [] else fact["default"]
        assert as_facts(known.default) == expected, known.name
        if fact["choices"] and known.name != "trackio_static_space_id":
            assert set(known.choices) - OUR_CHOICES.get(known.name, set()) == set(fact["choices"]), known.name


def test_types_are_those_users_know() -> None:
    compared = 0
    for fact in ARGUMENTS:
        known, theirs = KEYS[fact["name"]], fact["type"]
        if theirs.removesuffix(" | None") in ("bool", "int", "float"):
            assert (known.kinds, known.nullable) == ((theirs.split()[0],), theirs.endswith("None")), known.name
            compared += 1
        if "dict" in theirs:
            assert "dict[str, Any]" in known.kinds, known.name
    assert compared > 200


def test_every_key_says_what_it_is() -> None:
    for name, known in KEYS.items():
        assert known.help.endswith("."), name
        assert known.group, name
        assert known.kinds, name
        assert known.commands, name
        assert set(known.commands) <= set(COMMANDS), name
        assert known.default is None or coerce(known, known.default) == known.default, name
        assert set(known.not_yet_values) <= set(known.choices), name
        assert known.default not in known.not_yet_values, name


def test_no_key_is_declared_twice() -> None:
    declared = [name for group in GROUPS for name in vars(group)["__annotations__"] if name.islower()]
    assert len(declared) == len(set(declared)) == len(KEYS)


def test_groups_have_titles_of_their_own() -> None:
    titles = [group.TITLE for group in GROUPS]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_defaults_alone_make_a_configuration() -> None:
    config = RunConfig.from_dict({})
    assert config.explicit == frozenset()
    assert config == RunConfig()
    for name, known in KEYS.items():
        assert getattr(config, name) == known.default


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RunConfig().lora_rank = 4  # type: ignore[misc]


def test_secrets_are_never_shown() -> None:
    config = RunConfig.from_dict({"hf_hub_token": "hf_geheim"})
    assert config.hf_hub_token == "hf_geheim"
    for text in (repr(config), str(config.to_dict()), config.to_yaml()):
        assert "hf_geheim" not in text
    assert "hf_hub_token" not in config.to_dict()
    secret_words = ("_token", "_api_key", "_secret")
    missed = [name for name in KEYS if name.endswith(secret_words) and not KEYS[name].secret]
    assert missed == []


def test_replace_checks_and_counts_as_set() -> None:
    config = RunConfig.from_dict({"lora_target": "q_proj,v_proj"}).replace(lora_rank="16", dataset=["a", "b"])
    assert config.lora_rank == 16
    assert config.dataset == ("a", "b")
    assert config.explicit == {"lora_target", "lora_rank", "dataset"}
    assert config.replace(lora_rank=None).lora_rank == 8


def test_training_arguments_hold_what_transformers_owns() -> None:
    arguments = RunConfig.from_dict({"learning_rate": "1e-4", "report_to": "tensorboard"}).training_arguments()
    assert arguments["learning_rate"] == 1e-4
    assert arguments["report_to"] == ["tensorboard"]
    assert not {"lora_rank", "deepspeed", "fp8", "hub_token", "warmup_ratio"} & set(arguments)
