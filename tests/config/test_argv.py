"""Words of the command line that went wrong on their way."""

from __future__ import annotations

import pytest

from tunesmith.config.load import load_config
from tunesmith.core.errors import ConfigError


def problems_of(words: list[str]) -> list:
    with pytest.raises(ConfigError) as caught:
        load_config(words, "train")
    return caught.value.problems


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["--stage", "sft", " "], "lone backslash", "very last character"),
        (["--stage", "sft", "\\"], "lone backslash", "very last character"),
        (["--do_train", "True", " ", "#", "True用于训练"], "lone backslash", "no comment"),
        (["--do_predict", " ", "# now"], "lone backslash", "no comment"),
        (["--stage", "sft", "#", "训练阶段", "--lora_rank", "8"], "'#'", "no comment"),
        (["—stage", "sft"], "only looks like two dashes", "write --stage"),
        (["–stage=sft"], "only looks like two dashes", "write --stage"),
        (["-stage", "sft"], "begins with one dash", "write --stage"),
        (["--lora", "rank", "8"], "unknown key --lora rank", "write --lora_rank"),
        (["lora_rank", "=", "8"], "'lora_rank' belongs to no key", "--lora_rank"),
        (["--lora_rank"], "--lora_rank needs a value", ""),
        (["--lora_rank", "--plot_loss"], "--lora_rank needs a value", ""),
        (["--dataset", "--plot_loss"], "--dataset needs a value", ""),
        (["config.toml"], "'config.toml' belongs to no key", ".yaml"),
        (["--lora_rank", "8", "stray"], "'stray' belongs to no key", "quotes"),
    ],
)
def test_words_that_cannot_be_meant(words: list[str], what: str, fix: str) -> None:
    found = problems_of(words)
    assert what in found[0].what
    assert fix in found[0].fix
    assert found[0].where == "command line"


def test_lost_words_do_not_call_up_rules() -> None:
    assert len(problems_of(["--stage", "sft", " "])) == 1


def test_unknown_flags_name_the_nearest_key() -> None:
    found = problems_of(["--lora_rnk", "8", "--learningrate=1", "foo_bar=1", "--plot_los"])
    by_place = {problem.where: problem for problem in found}
    assert "lora_rank" in by_place["--lora_rnk"].fix
    assert "learning_rate" in by_place["--learningrate"].fix
    assert "plot_loss" in by_place["--plot_los"].fix
    assert "foo_bar" in by_place["foo_bar=..."].what


def test_two_files(write) -> None:
    one, two = write("top_k: 1", "a.yaml"), write("top_k: 2", "b.yaml")
    assert "a.yaml is read already" in problems_of([one, two])[0].fix


def test_a_missing_file_names_its_neighbour(write) -> None:
    write("top_k: 1", "llama3_lora_sft.yaml")
    (found,) = problems_of(["llama3_lora_stf.yaml"])
    assert "there is no file" in found.what
    assert "llama3_lora_sft.yaml" in found.fix
    (found,) = problems_of(["nowhere/at_all.yaml"])
    assert "no folder nowhere" in found.fix
