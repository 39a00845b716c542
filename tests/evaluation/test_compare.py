"""Runs against each other: pairing, bootstrap, wins, losses, the page; planted differences are found, noise is not."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.cli.main import main
from tunesmith.config.schema import RunConfig
from tunesmith.evaluation.intervals import holm, paired_bootstrap
from tunesmith.evaluation.svg import Interval, curve_plot, interval_plot, ticks


def test_the_bootstrap_finds_what_a_t_test_finds() -> None:
    """For 200 normal differences the percentile interval is that of the normal distribution, within a tenth of it."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=200)
    second = first + rng.normal(0.3, 1.0, size=200)
    found = paired_bootstrap(first.tolist(), second.tolist())
    differences = second - first
    half = 1.96 * differences.std() / math.sqrt(200)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.1 * half)
    assert found.p_value < 0.01
    assert (found.wins, found.losses, found.ties) == (int((differences > 0).sum()), int((differences < 0).sum()), 0)


def test_the_bootstrap_errs_as_seldom_as_it_says() -> None:
    """400 pairs of runs without a difference: about 5 % are told apart."""
    rng = np.random.default_rng(2)
    wrong = 0
    for seed in range(400):
        first, second = rng.integers(0, 2, (2, 60)).astype(float)
        wrong += paired_bootstrap(first.tolist(), second.tolist(), seed=seed, resamples=999).p_value < 0.05
    assert 5 <= wrong <= 35


def test_the_same_run_is_no_difference() -> None:
    found = paired_bootstrap([1.0, 0.0], [1.0, 0.0])
    assert (found.mean, found.low, found.high, found.p_value, found.ties) == (0, 0, 0, 1.0, 2)


def test_a_seed_gives_the_same_numbers() -> None:
    first, second = [0.0, 1.0, 0.5, 0.2] * 9, [0.3, 0.9, 0.6, 0.1] * 9
    assert paired_bootstrap(first, second, seed=3) == paired_bootstrap(first, second, seed=3)
    assert paired_bootstrap(first, second, seed=3) != paired_bootstrap(first, second, seed=4)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def write_run(folder: Path, right: list[bool], *, text: str = "answer", extra: int = 0, **keys: Any) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {
            "prompt": f"question {i}",
            "predict": f"{text} {i} <b>&",
            "label": f"wanted {i}",
            "scores": {"exact_match": is_right, "rouge1": 100.0 * is_right, "label": "x", "correct": is_right},
        }
        for i, is_right in enumerate([*right, *[True] * extra])
    ]
    (folder / "generated_predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "all_results.json").write_text(json.dumps({"predict_exact_match": sum(right) / len(right)}))
    steps = [{"current_steps": i, "loss": 2.0 / i} for i in range(1, 9)] + [{"current_steps": 8, "eval_loss": 0.4}]
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    config = RunConfig.from_dict({"model_name_or_path": "m", "output_dir": str(folder), "dataset": "d", **keys})
    (folder / "training_args.yaml").write_text(config.to_yaml())
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    half = [i % 2 == 0 for i in range(40)]
    return {
        "base": write_run(tmp_path / "base" / "predict", half),
        "good": write_run(tmp_path / "good" / "predict", [i % 8 != 1 for i in range(40)], learning_rate=1e-3, extra=2),
        "same": write_run(tmp_path / "same" / "predict", [i % 2 == 1 if i < 4 else i % 2 == 0 for i in range(40)]),
    }


def compared(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["compare", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_better_run_by_hand(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """20 of 40 right, then 35 of 40: 15 won, none lost, 25 the same; two rows have no partner."""
    found = compared(capsys, runs["base"], runs["good"])
    assert found["keys"] == {"learning_rate": [5e-5, 1e-3]}
    by_metric = {one["metric"]: one for one in found["comparisons"]}
    assert set(by_metric) == {"exact_match", "rouge1", "correct"}
    one = by_metric["exact_match"]
    assert (one["first_mean"], one["second_mean"]) == pytest.approx((0.5, 0.875))
    assert one["difference"] == pytest.approx(0.375)
    assert (one["wins"], one["losses"], one["ties"], one["unpaired"]) == (15, 0, 25, 2)
    assert one["verdict"] == "better"
    assert one["interval_95"][0] > 0.2
    assert by_metric["rouge1"]["difference"] == pytest.approx(37.5)
    assert [run["name"] for run in found["runs"]] == ["base/predict", "good/predict"]


def test_noise_is_not_told_apart(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (one, *_) = compared(capsys, runs["base"], runs["same"])["comparisons"]
    assert (one["wins"], one["losses"]) == (2, 2)
    assert one["verdict"] == "not told apart"


def test_several_runs_are_each_held_against_the_first(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, *runs.values())["comparisons"]
    pairs = [(one["metric"], one["second"], one["verdict"]) for one in found]
    assert pairs[:2] == [
        ("exact_match", "good/predict", "better"),
        ("exact_match", "same/predict", "not told apart"),
    ]
    assert found[0]["p_value"] == pytest.approx(2 * found[0]["p_value_alone"])


def test_questions_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, letters in (("a", "ABAB"), ("b", "AAAA")):
        (tmp_path / name).mkdir()
        rows = [
            {"subject": "s", "category": "STEM", "index": i, "question": f"q{i}", "choices": ["x", "y"],
             "answer": "A", "predicted": letter, "correct": letter == "A",
             "logprobs": {"A": -0.5 if letter == "A" else -2.0, "B": -1.0}}
            for i, letter in enumerate(letters)
        ]  # fmt: skip
        rows.append(rows[0] | {"index": 9, "answer": None, "correct": None})
        (tmp_path / name / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compared(capsys, tmp_path / "a", tmp_path / "b")
    by_metric = {one["metric"]: one for one in found["comparisons"]}
    assert (by_metric["accuracy"]["wins"], by_metric["accuracy"]["count"]) == (2, 4)
    assert by_metric["right_letter_logprob"]["difference"] == pytest.approx(0.75)


class Page(HTMLParser):
    """Checks that tags close, and keeps what was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_by_itself(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    file = tmp_path / "out" / "compare.html"
    assert main(["compare", *map(str, runs.values()), "--html", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "exact_match" in shown
    assert "learning_rate: 5e-05 | 0.001 | 5e-05" in shown
    html = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|src=|@import|url\(", html)
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.seen.count("svg") == 2 + 2  # two scales of metrics, two curves
    text = " ".join(page.text)
    assert "answer 1 <b>&" in text
    assert "35" not in page.seen
    for words in ("Differences", "Curve: loss", "Curve: eval_loss", "learning_rate", "good/predict", "won", "lost"):
        assert words in text


def test_plots_draw_what_they_are_given() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-37, 120, 4) == [0, 50, 100]
    assert ticks(2, 2) == [2]
    plot = interval_plot([Interval("a <b>", -0.1, 0.2, 0.5, "better"), Interval("c", 0, 0, 0, "open")])
    assert plot.count("<circle") == 2
    assert "a &lt;b&gt;" in plot
    assert "nan" not in plot
    assert "nan" not in curve_plot([("one", [(1.0, 2.0)]), ("two", [(1.0, 2.0), (2.0, 2.0)])])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{base}"], "two different folders or more"),
        (["{base}", "{base}"], "two different folders or more"),
        (["{base}", "nowhere"], "there is no run nowhere"),
        (["{base}", "{empty}"], "holds no results"),
        (["{base}", "{good}", "--htlm", "x"], "does not know --htlm"),
        (["{base}", "{good}", "--seed", "x"], "takes a whole number"),
    ],
)
def test_mistakes(runs: dict[str, Path], tmp_path: Path, capsys, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {**runs, "empty": tmp_path / "empty"}
    assert main(["compare", *(word.format(**places) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_runs_without_common_samples_still_show_their_numbers(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "all_results.json").write_text('{"train_loss": 1.5}')
    page = tmp_path / "page.html"
    assert main(["compare", str(runs["base"]), str(tmp_path / "lone"), "--html", str(page)]) == 0
    assert "share no scored samples" in capsys.readouterr().err
    assert "1.5" in page.read_text()


def test_help(capsys) -> None:
    assert main(["compare", "-h"]) == 0
    assert "usage: tunesmith compare" in capsys.readouterr().out
