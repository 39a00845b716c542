"""The resolved configuration loads again to the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.build import Checks
from tunesmith.config.coerce import MismatchError, coerce
from tunesmith.config.load import load_config
from tunesmith.config.schema import KEYS, RunConfig

FREE = Checks(rules=False, paths=False, unbuilt=False)


def loaded_again(config: RunConfig) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        return load_config([str(path)], config.command, FREE)


def same_values(one: RunConfig, other: RunConfig) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name, known in KEYS.items() if not known.secret)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    [
        "none",
        "None",
        "null",
        "~",
        "",
        " a ",
        "no",
        "1e-4",
        "a: b",
        "#x",
        "${x}",
        "$${x}",
        "{a}",
        "[a]",
        "a\nb",
        "\t",
        "- a",
        "'",
        '"',
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=3), TEXT, st.floats(0, 1e9), st.integers(1, 10**9), st.none() | st.booleans())
def test_any_value_survives(stops, text, number, count, flag) -> None:
    text = text.replace("${", "$${")
    config = RunConfig.from_dict(
        {
            "stop": [stop.replace("${", "$${") for stop in stops],
            "run_name": text,
            "default_system": text,
            "learning_rate": number,
            "lora_rank": count,
            "enable_thinking": flag,
            "lr_scheduler_kwargs": {"a": number, "b": count, "c": flag, "d": [count, True], "e": text},
            "lora_target": ["q_proj", "v_proj"],
        }
    )
    again = loaded_again(config)
    for name in ("stop", "run_name", "default_system", "learning_rate", "lora_rank", "enable_thinking", "lora_target"):
        assert getattr(again, name) == getattr(config, name), name
    assert again.lr_scheduler_kwargs == config.lr_scheduler_kwargs


def test_every_key_survives(tmp_path: Path) -> None:
    samples = ["3", "0.5", "true", "abc", "{a: 1}", None]
    settings = {}
    for name, known in KEYS.items():
        if known.not_yet:
            continue
        for sample in [*known.choices, *samples]:
            try:
                value = coerce(known, sample)
            except MismatchError:
                continue
            if value != known.default and str(value) not in known.not_yet_values:
                if isinstance(value, tuple) and any(item in known.not_yet_values for item in value):
                    continue
                settings[name] = value
                break
    assert len(settings) > 150
    config = RunConfig.from_dict(settings)
    again = loaded_again(config)
    assert same_values(config, again)
    assert same_values(again, loaded_again(again))


def test_it_is_plain_yaml_with_what_was_set_first(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"lora_rank": 4, "hf_hub_token": "geheim", "dataset": "a,b", "eval_strategy": "steps"})
    text = config.to_yaml()
    plain = yaml.safe_load(text)
    assert plain["lora_rank"] == 4
    assert plain["dataset"] == ["a", "b"]
    assert plain["do_eval"] is True
    assert plain["seed"] == 42
    assert "geheim" not in text
    assert "# hf_hub_token is set" in text
    assert text.index("lora_rank") < text.index("### defaults") < text.index("seed: 42")
    assert not [name for name in plain if KEYS[name].not_yet]


def test_references_are_resolved(load, monkeypatch) -> None:
    monkeypatch.setenv("TS_NAME", "x1")
    assert "run_name: x1" in load("run_name: ${oc.env:TS_NAME}").to_yaml()


TRAINED = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "do_train": True, "template": "chatml"}
WRITTEN: list[dict[str, object]] = [
    {},
    {"finetuning_type": "full", "optim": "lomo"},
    {"finetuning_type": "full", "optim": "schedule_free_adamw"},
    {"finetuning_type": "full", "use_galore": True},
    {"finetuning_type": "freeze", "use_badam": True},
    {"finetuning_type": "oft"},
    {"pissa_init": True},
    {"stage": "dpo"},
    {"stage": "rm"},
    {"stage": "ppo", "reward_model": "r"},
    {"stage": "grpo", "reward_funcs": "json_valid", "max_new_tokens": 32},
]


@pytest.mark.parametrize("keys", WRITTEN, ids=str)
def test_what_a_run_writes_passes_the_rules_again(keys: dict[str, object], tmp_path: Path) -> None:
    """Defaults that it spells out are no reason to refuse it."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**TRAINED, **keys}), encoding="utf-8")
    config = load_config([str(path)], "train", Checks(paths=False))
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert same_values(config, load_config([str(path)], "train", Checks(paths=False)))
