"""Asking: prompts, results worked by hand, resumption, and equality with one whole forward pass a question."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.evaluation.small_benchmarks import write_ceval, write_cmmlu, write_mmlu

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError, TunesmithError
from tunesmith.data.template import load_template
from tunesmith.evaluation.benchmarks import load_benchmark
from tunesmith.evaluation.choices import ChoiceEvaluation, ChoiceSettings
from tunesmith.evaluation.intervals import wilson
from tunesmith.evaluation.prompts import (
    Style,
    draw_examples,
    letter_tokens,
    messages_of,
    warn_of_few_examples,
    write_prompts,
)
from tunesmith.evaluation.question import Question, Subject
from tunesmith.evaluation.results import table_lines, write_results
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.scoring import Score, ScoreRequest
from tunesmith.inference.stepped import SteppedEngine


class FixedScorer(SteppedEngine):
    """Finds the letters of `pattern` likeliest, in turn; answers backwards, as no one promised an order."""

    context: int | None = None

    def __init__(self, pattern: str, die_after: int | None = None) -> None:
        self.pattern = pattern
        self.die_after = die_after
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest], adapter: str | None = None) -> Iterator[tuple[int, Score]]:
        for index in reversed(range(len(requests))):
            if self.die_after is not None and len(self.asked) >= self.die_after:
                raise KeyboardInterrupt
            self.asked.append(requests[index])
            best = "ABCD".index(self.pattern[index % len(self.pattern)])
            logprobs = [-5.0] * len(requests[index].candidates)
            logprobs[best] = -0.25
            yield index, Score(tuple(logprobs))


@pytest.fixture
def form(tiny_tokenizer: Any) -> ChatFormat:
    return ChatFormat(load_template("fewshot"), tiny_tokenizer, end_token_ids=(2,))


def subjects_of(root: Path, name: str, split: str) -> list[Subject]:
    return load_benchmark(
        RunConfig.from_dict({"model_name_or_path": "m", "task_dir": str(root)}, command="eval"), name, split
    )


def run(form: ChatFormat, engine: Any, subjects: list[Subject], folder: Path | None, **settings: Any) -> list[Any]:
    evaluation = ChoiceEvaluation(engine, form, ChoiceSettings(**settings), folder)
    answers = evaluation.run(subjects)
    if folder is not None:
        write_results(folder, answers, {"task": "small"})
    return answers


def test_prompts_hold_examples_then_the_question(form: ChatFormat) -> None:
    question, example = Question("Is tea hot?", ("yes", "no"), 0), Question("Is ice hot?", ("yes", "no"), 1)
    text = form.tokenizer.decode(form.prompt_ids(messages_of("tea", [example], question, Style())))
    assert text.endswith("Is ice hot?\nA. yes\nB. no\nAnswer:B\n\nIs tea hot?\nA. yes\nB. no\nAnswer:")
    assert text.index("tea") < text.index("Is ice")
    chinese = form.tokenizer.decode(form.prompt_ids(messages_of("茶", [], question, Style("zh"))))
    assert chinese.endswith("Is tea hot?\nA. yes\nB. no\n答案：")
    assert "关于茶的" in chinese


def test_a_chat_template_makes_turns(tiny_tokenizer: Any) -> None:
    form = ChatFormat(load_template("chatml"), tiny_tokenizer)
    question = Question("Is tea hot?", ("yes", "no"), 0)
    text = tiny_tokenizer.decode(form.prompt_ids(messages_of("tea", [question], question, Style())))
    assert "Answer:<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nIs tea hot?" in text
    assert text.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")


def test_examples_are_drawn_by_seed_and_subject(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    first, second, _ = subjects_of(tmp_path, "mmlu", "test")
    drawn = draw_examples(first, 3, 1)
    assert drawn == draw_examples(first, 3, 1)
    assert len({example.text for example in drawn}) == 3
    orders = {tuple(e.text.split()[3] for e in draw_examples(s, 5, seed)) for s in (first, second) for seed in range(4)}
    assert len(orders) > 4
    assert draw_examples(first, 0, 1) == []
    assert len(draw_examples(first, 9, 1)) == 5


def test_results_by_hand(tmp_path: Path, form: ChatFormat) -> None:
    """Right letters A B C D A in each of three subjects, found A B C C A: 4 of 5 three times, 12 of 15."""
    write_mmlu(tmp_path)
    answers = run(form, FixedScorer("ABCCA"), subjects_of(tmp_path, "mmlu", "test"), tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "results.log").read_text() == (
        "        Average: 80.00\n           STEM: 80.00\nSocial Sciences: 80.00\n     Humanities: 80.00\n"
    )
    letters = {"0": "A", "1": "B", "2": "C", "3": "C", "4": "A"}
    assert json.loads((out / "results.json").read_text()) == {
        "pond_life": letters,
        "tea_history": letters,
        "village_council": letters,
    }
    summary = json.loads((out / "summary.json").read_text())
    low, high = summary["categories"]["Average"]["interval_95"]
    assert (low, high) == pytest.approx((0.548141, 0.929530), abs=1e-5)
    assert summary["subjects"]["tea_history"]["correct"] == 4
    rows = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert [(row["subject"], row["index"]) for row in rows] == [
        (name, i) for name in ("pond_life", "tea_history", "village_council") for i in range(5)
    ]
    assert rows[3]["logprobs"] == {"A": -5.0, "B": -5.0, "C": -0.25, "D": -5.0}
    assert (rows[3]["answer"], rows[3]["predicted"], rows[3]["correct"]) == ("D", "C", False)
    table = pyarrow.parquet.read_table(out / "questions.parquet").to_pylist()
    assert [row["correct"] for row in table] == [answer.is_correct for answer in answers]
    assert table[3]["logprobs"] == [-5.0, -5.0, -0.25, -5.0]
    assert "95 % interval  54.8 to  93.0, 15 questions" in table_lines(answers)[0]


def test_ceval_by_hand(tmp_path: Path, form: ChatFormat) -> None:
    """Right letters B B A D, found B A A A: 2 of 4."""
    write_ceval(tmp_path)
    run(form, FixedScorer("BAAA"), subjects_of(tmp_path, "ceval", "validation"), tmp_path / "out", lang="zh")
    assert (tmp_path / "out" / "results.log").read_text().splitlines() == [
        "        Average: 50.00",
        "           STEM: 50.00",
        "     Humanities: 50.00",
        "          Other: 50.00",
    ]


def test_answers_that_are_not_published_give_a_file_to_hand_in(tmp_path: Path, form: ChatFormat) -> None:
    write_ceval(tmp_path)
    answers = run(form, FixedScorer("DCB"), subjects_of(tmp_path, "ceval", "test"), tmp_path / "out", lang="zh")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["kite_making"] == {"0": "D", "1": "C", "2": "B"}
    assert [answer.is_correct for answer in answers] == [None] * 9
    assert (tmp_path / "out" / "results.log").read_text().startswith("        Average: -\n")


def test_cmmlu_by_hand(tmp_path: Path, form: ChatFormat) -> None:
    """Right letters A B C D A B, found A A B B C C: one of six."""
    write_cmmlu(tmp_path)
    run(form, FixedScorer("AABBCC"), subjects_of(tmp_path, "cmmlu", "test"), tmp_path / "out", lang="zh")
    assert "        Average: 16.67\n" in (tmp_path / "out" / "results.log").read_text()


def test_a_killed_evaluation_goes_on(tmp_path: Path, form: ChatFormat) -> None:
    write_mmlu(tmp_path)
    subjects = subjects_of(tmp_path, "mmlu", "test")
    with pytest.raises(KeyboardInterrupt):
        run(form, FixedScorer("ABCCA", die_after=8), subjects, tmp_path / "out")
    file = tmp_path / "out" / "questions.jsonl"
    assert len(file.read_text().splitlines()) == 8
    with file.open("a") as handle:
        handle.write('{"subject": "to')
    engine = FixedScorer("ABCCA")
    answers = run(form, engine, subjects, tmp_path / "out")
    assert len(engine.asked) == 7
    assert len(answers) == 15
    run(form, FixedScorer("ABCCA"), subjects, tmp_path / "whole")
    rows = {
        (row["subject"], row["index"]): row["answer"]
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    }
    assert list(rows) == [
        (row["subject"], row["index"])
        for row in map(json.loads, (tmp_path / "whole" / "questions.jsonl").read_text().splitlines())
    ]


def test_results_of_something_else_are_not_written_over(tmp_path: Path, form: ChatFormat) -> None:
    write_mmlu(tmp_path)
    subjects = subjects_of(tmp_path, "mmlu", "test")
    run(form, FixedScorer("A"), subjects, tmp_path / "out")
    for changed in ({"n_shot": 4}, {"seed": 1}, {"lang": "zh"}):
        with pytest.raises(TunesmithError, match="holds results of another"):
            run(form, FixedScorer("A"), subjects, tmp_path / "out", **changed)
    with pytest.raises(TunesmithError, match="holds results of another"):
        ChoiceEvaluation(FixedScorer("A"), form, ChoiceSettings(), tmp_path / "out").run(subjects, weights="other")
    engine = FixedScorer("A")
    run(form, engine, subjects, tmp_path / "out")
    assert engine.asked == []


def test_prompts_that_are_too_long_lose_examples(tmp_path: Path, form: ChatFormat) -> None:
    write_mmlu(tmp_path)
    (subject, *_) = subjects_of(tmp_path, "mmlu", "test")
    examples = draw_examples(subject, 5, 0)
    whole = write_prompts(form, subject, examples, Style(), None)
    assert [prompt.n_examples for prompt in whole] == [5] * 5
    context = min(len(prompt.ids) for prompt in whole)
    short = write_prompts(form, subject, examples, Style(), context)
    assert {prompt.n_examples for prompt in short} == {4}
    assert all(len(prompt.ids) < context for prompt in short)
    with pytest.raises(TunesmithError, match="pond_life, question 0"):
        write_prompts(form, subject, examples, Style(), 9)


def test_letters_that_look_alike_are_refused(form: ChatFormat) -> None:
    class Blind:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [7]

    with pytest.raises(ModelError, match="cannot be told apart"):
        letter_tokens(ChatFormat(form.template, Blind()), "AB")  # type: ignore[arg-type]
    assert len(set(letter_tokens(form, "ABCD"))) == 4


def test_fewer_worked_examples_than_asked_for_are_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_few_examples(5, {"algebra": 5, "history": 0})
    assert caplog.text == ""
    warn_of_few_examples(9, dict.fromkeys(("a", "b", "c", "d", "e"), 5) | {"none": 0})
    assert "n_shot: 9, but fewer worked examples in a (5), b (5), c (5) and 2 more: all are shown" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 4])
def test_equal_to_a_forward_pass_for_each_question(tmp_path: Path, form: ChatFormat, batch_size: int) -> None:
    """Predictions are the same, log-probabilities within 1e-4, as from transformers alone on every whole prompt."""
    write_mmlu(tmp_path)
    model = make_tiny_llama(max_position_embeddings=2048, initializer_range=0.2).eval()
    subjects = subjects_of(tmp_path, "mmlu", "test")
    settings = ChoiceSettings(n_shot=3)
    answers = ChoiceEvaluation(HuggingFaceEngine(model, batch_size=batch_size), form, settings).run(subjects)
    letters = list(letter_tokens(form, "ABCD"))
    found = iter(answers)
    for subject in subjects:
        examples = draw_examples(subject, 3, settings.seed)
        for prompt in write_prompts(form, subject, examples, Style(), 2048):
            with torch.no_grad():
                plain = model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].log_softmax(-1)[letters].tolist()
            answer = next(found)
            assert list(answer.logprobs.values()) == pytest.approx(plain, abs=1e-4)
            assert answer.predicted == "ABCD"[plain.index(max(plain))]


def test_wilson_by_hand() -> None:
    """0 of 10: z^2 / (n + z^2); the published interval of 81 of 263 (Newcombe 1998) is 0.2553 to 0.3662."""
    assert wilson(0, 10) == pytest.approx((0.0, 3.8414588 / 13.8414588), abs=1e-6)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = wilson(7, 7)
    assert high == 1.0
    assert math.isclose(low, 7 / (7 + 3.8414588), rel_tol=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
