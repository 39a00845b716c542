"""Configurations with one thing made wrong: each is refused with its line, and a misspelt key finds its way back."""

from __future__ import annotations

import random

import pytest

from tunesmith.config.schema import COMMANDS, KEYS
from tunesmith.config.suggest import near_keys

LETTERS = "abcdefghijklmnopqrstuvwxyz_"
BUILT = [name for name, known in KEYS.items() if not known.not_yet and "train" in known.commands]


def misspelt(name: str, dice: random.Random) -> str:
    """One letter added, left out, replaced, or swapped with the next."""
    at = dice.randrange(len(name))
    way = dice.randrange(4)
    if way == 0:
        return name[:at] + name[at + 1 :]
    if way == 1:
        return name[:at] + dice.choice(LETTERS) + name[at:]
    if way == 2:
        return name[:at] + dice.choice(LETTERS) + name[at + 1 :]
    return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]


def test_single_edits_of_every_key_lead_back() -> None:
    dice = random.Random(7)
    asked = found = 0
    for name in KEYS:
        word = misspelt(name, dice)
        if word in KEYS:
            continue
        asked += 1
        found += name in near_keys(word)
    assert asked > 360
    assert found / asked >= 0.98, f"{found} of {asked}"


@pytest.mark.parametrize("seed", range(120))
def test_misspelt_keys(problems, seed: int) -> None:
    dice = random.Random(seed)
    name = dice.choice(BUILT)
    word = misspelt(name, dice)
    while word in KEYS:
        word = misspelt(name, dice)
    found = problems(f"'{word}': x")
    assert found[0].where == "run.yaml:5"
    assert found[0].what == f"unknown key {word}"
    assert name in found[0].fix


def wrong_values() -> list[tuple[str, str]]:
    cases = []
    for name in BUILT:
        known = KEYS[name]
        if known.choices:
            cases.append((name, "zzz"))
            cases.append((name, f"{known.choices[0]}x"))
        elif known.kinds in (("int",), ("float",), ("bool",)):
            cases += [(name, "abc"), (name, "[1, 2]"), (name, "{a: 1}")]
        elif known.is_list and name != "dataset":
            cases.append((name, "{a: 1}"))
        for bound, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
            if bound in known.bounds:
                cases.append((name, f"{known.bounds[bound] + step:g}"))
    return cases


WRONG = wrong_values()


def test_there_are_enough_wrong_values() -> None:
    assert len(WRONG) > 250


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values(problems, name: str, value: str) -> None:
    line = 5
    if name in ("output_dir", "do_train", "model_name_or_path"):
        found = [problem for problem in problems("", f"{name}={value}") if name in problem.what]
        assert found[0].where == f"{name}={value}"
        return
    found = [problem for problem in problems(f"{name}: {value}") if problem.where == f"run.yaml:{line}"]
    assert found
    assert name in found[0].what


@pytest.mark.parametrize(
    "old", ["epochs", "lr", "max_seq_length", "base_model", "lora_r", "target_modules", "learning-rate"]
)
def test_names_of_other_programs(problems, old: str) -> None:
    meant = {
        "epochs": "num_train_epochs",
        "lr": "learning_rate",
        "max_seq_length": "cutoff_len",
        "base_model": "model_name_or_path",
        "lora_r": "lora_rank",
        "target_modules": "lora_target",
        "learning-rate": "learning_rate",
    }[old]
    (found,) = problems(f"{old}: 1")
    assert meant in found.fix


def test_keys_of_other_commands_are_no_mistake(load) -> None:
    for name, known in KEYS.items():
        other = [command for command in COMMANDS if command not in known.commands]
        if "train" in other and known.default not in (None, (), True, False) and not known.secret:
            value = ",".join(known.default) if isinstance(known.default, tuple) else known.default
            config = load(f"{name}: {value}")
            assert name in config.unused
