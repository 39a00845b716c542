"""What generators write, read as entries or refused with a reason."""

from __future__ import annotations

import json

import pytest

from tunesmith.synthesis.replies import Entry, read_entries
from tunesmith.synthesis.tolerant import find_objects
from tunesmith.synthesis.verdicts import chosen, says_yes

GOOD = [Entry("为什么下雪？", "因为冷。", "雪下了三天。"), Entry("What is it?", "A lamp.", "The lamp burned.")]
PLAIN = json.dumps([{"question": e.question, "answer": e.answer, "quote": e.quote} for e in GOOD], ensure_ascii=False)
DRESSED = {
    "plain": PLAIN,
    "fenced": f"```json\n{PLAIN}\n```",
    "fenced without a name": f"Here you are:\n```\n{PLAIN}\n```\nAnything else?",
    "after a thought": f'<think>Maybe [{{"question": "no"}}]?</think>\n{PLAIN}',
    "after a thought whose mark is lost": f'Maybe {{"question": "no", "answer": "no"}}?</think>{PLAIN}',
    "trailing commas": PLAIN.replace("}", ",}").replace("]", ",]"),
    "in an object": f'{{"entries": {PLAIN}}}',
    "one object a line": PLAIN.strip("[]").replace("}, {", "}\n{"),
    "other names": PLAIN.replace("question", "instruction").replace("answer", "output").replace("quote", "evidence"),
    "Chinese names": PLAIN.replace("question", "问题").replace("answer", "回答").replace("quote", "原文"),
    "single quotes": PLAIN.replace('"', "'"),
    "bare names": PLAIN.replace('"question"', "question").replace('"answer"', "answer").replace('"quote"', "quote"),
    "full-width signs": PLAIN.replace('": "', '"：  "').replace('", "', '"，"'),
    "numbered names": PLAIN.replace('"question"', '"question 1"').replace('"answer"', '"Answer 1"'),
    "marked lines": "\n\n".join(f"Question: {e.question}\nAnswer: {e.answer}\nQuote: {e.quote}" for e in GOOD),
    "marked lines, numbered and bold": "\n".join(
        f"**Question {n}:** {e.question}\n**Answer {n}:** {e.answer}\n**Quote:** {e.quote}"
        for n, e in enumerate(GOOD, 1)
    ),
    "marked in Chinese": "\n".join(f"问题：{e.question}\n回答：{e.answer}\n原文：{e.quote}" for e in GOOD),
}


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_an_answer_is_read_however_it_is_dressed(text: str) -> None:
    assert read_entries(text) == (GOOD, "")


@pytest.mark.parametrize("end", range(1, len(PLAIN) - 1, 3))
def test_of_a_broken_answer_the_whole_entries_are_kept_and_the_break_is_said(end: int) -> None:
    entries, why = read_entries(PLAIN[:end])
    assert entries == GOOD[: len(entries)]
    assert len(entries) == (PLAIN[:end].count("}") if end < len(PLAIN) - 1 else 2)
    assert why == "the reply broke off"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the reply is empty"),
        ("<think>hm</think>", "the reply is empty"),
        ("I am sorry, I cannot do that.", "the reply holds no question and answer"),
        ('{"question": "What?"}', "the reply holds no question and answer"),
        ("[1, 2, 3]", "the reply holds no question and answer"),
        ('[{"question": "What', "the reply broke off"),
        ("[" * 5000, "the reply broke off"),
    ],
)
def test_why_there_is_no_entry(text: str, why: str) -> None:
    entries, reason = read_entries(text)
    assert entries == []
    assert reason in (why, "the reply holds no question and answer" if text.startswith("[[") else why)


def test_quotation_marks_inside_a_string_that_nobody_escaped() -> None:
    objects, was_cut = find_objects('[{"question": "他说"你好"了吗？", "answer": "说了"你好"。", "quote": ""}]')
    assert not was_cut
    assert objects == [{"question": '他说"你好"了吗？', "answer": '说了"你好"。', "quote": ""}]


def test_escapes() -> None:
    assert find_objects(r'{"a": "\u4f60\n\"x\" \ud83d\ude00 \ud800"}')[0] == [{"a": '你\n"x" 😀 \ufffd'}]


def test_conversations() -> None:
    pairs = [{"question": "a?", "answer": "A"}, {"question": "b?", "answer": "B"}]
    entry = Entry("b?", "B", "q", (("a?", "A"),))
    assert read_entries(json.dumps([{"turns": pairs, "quote": "q"}]), 2) == ([entry], "")
    said = [("user", "a?"), ("assistant", "A"), ("user", "b?"), ("assistant", "B")]
    messages = [{"role": role, "content": content} for role, content in said]
    assert read_entries(json.dumps({"messages": messages, "quote": "q"}), 2) == ([entry], "")
    assert read_entries("Question: a?\nAnswer: A\nQuestion: b?\nAnswer: B\nQuote: q", 2) == ([entry], "")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("yes", True), ("Yes.", True), ("是", True), ("是的，有依据。", True), ("No", False), ("no, it does not", False),
     ("否。", False), ("不是", False), ("<think>yes</think>no", False), ("Perhaps", None), ("nobody knows", None),
     ("", None)],
)  # fmt: skip
def test_yes_and_no(text: str, verdict: bool | None) -> None:
    assert says_yes(text) is verdict


@pytest.mark.parametrize(
    ("text", "letter"), [("A", "A"), ("Answer B.", "B"), ("选B", "B"), ("A or B", None), ("", None)]
)
def test_a_or_b(text: str, letter: str | None) -> None:
    assert chosen(text) == letter
