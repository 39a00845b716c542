"""Mixing data sets by share: realised shares, order, repeats, and what is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, DataError
from tunesmith.data import pipeline
from tunesmith.data.mix import interleave
from tunesmith.data.template import build_template

SIZES = (1000, 300, 77)
MEMBERS = [np.arange(size) + 10_000 * index for index, size in enumerate(SIZES)]


def realised(order):
    return np.bincount(order // 10_000, minlength=3) / len(order)


@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over"])
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.1, 0.1, 0.8), ()])
def test_shares_hold_within_one_percent_in_total_and_on_the_way(strategy, shares):
    mixture = interleave(MEMBERS, strategy, shares, 1)
    wanted = np.array(shares or [1 / 3] * 3)
    assert np.abs(realised(mixture.order) - wanted).max() < 0.01
    assert np.abs(realised(mixture.order[: max(len(mixture.order) // 2, 100)]) - wanted).max() < 0.02


def test_under_uses_no_row_twice_and_one_set_up():
    mixture = interleave(MEMBERS, "interleave_under", (0.5, 0.3, 0.2), 1)
    assert len(set(mixture.order.tolist())) == len(mixture.order)
    assert mixture.counts[2] == 77


def test_over_uses_every_row():
    mixture = interleave(MEMBERS, "interleave_over", (0.5, 0.3, 0.2), 1)
    assert set(mixture.order.tolist()) == set(np.concatenate(MEMBERS).tolist())
    assert mixture.counts[0] == 1000
    times = np.unique(np.unique(mixture.order[mixture.order >= 20_000], return_counts=True)[1])
    assert times.tolist() == [5, 6]


def test_once_uses_every_row_once_in_the_asked_proportion_first():
    mixture = interleave(MEMBERS, "interleave_once", (0.5, 0.3, 0.2), 1)
    assert sorted(mixture.order.tolist()) == sorted(np.concatenate(MEMBERS).tolist())
    assert np.abs(realised(mixture.order[:300]) - np.array([0.5, 0.3, 0.2])).max() < 0.01


def test_the_seed_decides_and_nothing_else():
    def order(seed):
        return interleave(MEMBERS, "interleave_under", (0.5, 0.3, 0.2), seed).order.tolist()

    assert order(1) == order(1) != order(2)


def test_an_empty_set_cannot_be_mixed():
    with pytest.raises(DataError, match="without rows"):
        interleave([np.arange(3), np.arange(0)], "interleave_over", (), 0)


def test_rows_used_twice_are_said():
    mixture = interleave(MEMBERS, "interleave_over", (0.5, 0.3, 0.2), 1)
    lines = mixture.lines(("a", "b", "c"), SIZES)
    assert lines[0] == "mixed: a: 1,000 of 1,000 rows, 50.0 % (50.0 % asked)"
    assert lines[2] == "mixed: c: 400 rows out of 77, each 5 or 6 times, 20.0 % (20.0 % asked)"


@pytest.fixture
def prepare(tmp_path, byte_tokenizer):
    for name, count in (("a", 60), ("b", 20)):
        rows = [{"instruction": f"{name}{index}", "input": "", "output": "yes"} for index in range(count)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    entries = {name: {"file_name": f"{name}.json"} for name in "ab"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    template = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})

    def make(**keys):
        defaults = {"do_train": True, "dataset": "a,b", "dataset_dir": str(tmp_path), "mix_strategy": "interleave_over"}
        return pipeline.prepare(RunConfig.from_dict({**defaults, **keys}), byte_tokenizer, template)

    return make


def test_the_pipeline_mixes_after_the_split(prepare):
    prepared = prepare(interleave_probs=[0.25, 0.75], val_size=8)
    train, held = prepared.train, prepared.eval
    names = [train.source(index).file[-6:] for index in range(len(train))]
    assert abs(names.count("b.json") / len(names) - 0.75) < 0.01
    sources = {train.source(index) for index in range(len(train))}
    assert not sources & {held.source(index) for index in range(len(held))}
    assert sum(report.kept for report in prepared.report.datasets) == 80
    assert prepared.report.train_rows == len(train)


def test_one_set_alone_is_not_mixed(prepare):
    assert len(prepare(dataset="b").train) == 20


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("interleave_probs: 0.5,0.5\n", "does nothing with mix_strategy concat"),
        ("mix_strategy: interleave_over\ninterleave_probs: 0.5,0.3,0.2\n", "3 shares, dataset 2 names"),
        ("mix_strategy: interleave_over\ninterleave_probs: 1.0,0.0\n", "a share of 0 or less"),
        ("mix_strategy: interleave_over\ninterleave_probs: 3,1\n", r"add up to 4, not to 1(.|\n)*0.75, 0.25"),
    ],
)
def test_shares_that_do_not_fit_are_configuration_errors(tmp_path, lines, expected):
    path = tmp_path / "c.yaml"
    path.write_text("model_name_or_path: m\noutput_dir: o\ndo_train: true\ndataset: a,b\n" + lines)
    with pytest.raises(ConfigError, match=expected):
        load_config([str(path)], "train")
