"""Answers to evaluation rows: which prompt, which label, and memory that does not grow with the rows."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_tiny_llama

from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data.prompts import prompt_of
from tunesmith.data.template import load_template
from tunesmith.evaluation.answers import AnswerScores
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine

END = 2


def row(tokenizer: Any, *parts: tuple[str, bool]) -> TokenizedRow:
    """Texts one behind the other, trained or not."""
    ids: list[int] = []
    labels: list[int] = []
    for text, trained in parts:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if trained else [-100] * len(tokens)
    return TokenizedRow(ids, labels, Source("rows.json", 3))


def test_the_last_answer_is_asked_for(tiny_tokenizer: Any) -> None:
    parts = [
        ("one fox", False),
        ("a dog<|im_end|>", True),
        ("\nwho are you", False),
        ("I am<|im_end|>", True),
        ("\n", False),
    ]
    asked = prompt_of(row(tiny_tokenizer, *parts), tiny_tokenizer, frozenset({END}))
    assert asked is not None
    assert asked.prompt_text == "one foxa dog<|im_end|>\nwho are you"
    assert asked.label_text == "I am"
    assert asked.source == Source("rows.json", 3)


def test_rows_without_a_prompt_or_an_answer_are_not_asked(tiny_tokenizer: Any) -> None:
    assert prompt_of(row(tiny_tokenizer, ("all of it", True)), tiny_tokenizer, frozenset()) is None
    assert prompt_of(row(tiny_tokenizer, ("nothing", False)), tiny_tokenizer, frozenset()) is None


def scores_of(tokenizer: Any, rows: list[TokenizedRow], folder: Path, **model: Any) -> AnswerScores:
    engine = HuggingFaceEngine(make_tiny_llama(**model).eval(), batch_size=4)
    form = ChatFormat(load_template("chatml"), tokenizer, end_token_ids=(END,))
    sampling = SamplingParams(max_new_tokens=2, do_sample=False)
    board = lambda: Scoreboard(["rouge", "f1"])  # noqa: E731
    return AnswerScores(engine, form, sampling, {"eval": rows}, board, seed=1, folder=folder)


def test_rows_that_fill_the_context_are_left_out_and_said(
    tmp_path: Path, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(tiny_tokenizer, (text, False), ("a fox", True)) for text in ("who", "who " * 40, "what")]
    scores_of(tiny_tokenizer, rows, tmp_path, max_position_embeddings=24)("eval", 7)
    written = (tmp_path / "eval_answers" / "eval-7.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in written] == ["who", "what"]
    assert "with one that fills the context, are not asked; the first: rows.json, row 3" in caplog.text


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Twelve times as many rows: the peak of Python's memory grows by less than a fifth of what a row's texts take.

    It does grow a little: the interpreter keeps freed tuples for later use, a few thousand of them at most.
    """
    text = "who are you and what do you say to the quick brown fox " * 2
    few = [row(tiny_tokenizer, (f"{text} {i}", False), ("a fox", True)) for i in range(40)]
    of_a_row = sys.getsizeof(text) + sum(map(sys.getsizeof, few[0].input_ids)) + sys.getsizeof(few[0].input_ids)
    peaks = []
    for count in (40, 480):
        scores = scores_of(tiny_tokenizer, few * (count // 40), tmp_path)
        scores("eval", 0)  # whatever is made once
        tracemalloc.start()
        scores("eval", 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert scores._engine.stats().cache_bytes == 0
    assert (peaks[1] - peaks[0]) / 440 < of_a_row / 5, (peaks, of_a_row)
