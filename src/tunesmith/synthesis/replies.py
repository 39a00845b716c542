"""A generator's answer to entries: question, answer and quote, out of JSON or of marked lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunesmith.synthesis.tolerant import find_objects, without_thoughts

_NAMES = {
    "question": ("question", "instruction", "prompt", "task", "q", "问题", "指令", "提问", "问"),
    "context": ("input", "context", "输入"),
    "answer": ("answer", "output", "response", "completion", "a", "答案", "回答", "输出", "答"),
    "quote": ("quote", "evidence", "source", "support", "引用", "原文", "依据", "引文"),
    "turns": ("turns", "conversation", "dialogue", "messages", "对话"),
}
_QUESTION = r"(?:Question|Instruction|Task|Q|问题|提问|问)"
_ANSWER = r"(?:Answer|Response|Output|A|答案|回答|答)"
_QUOTE = r"(?:Quote|Evidence|引用|原文|依据)"
_MARK = r"[ \t]*[*_#>\-\d.、)）]*[ \t]*"
_LABEL = re.compile(
    rf"^{_MARK}(?:(?P<question>{_QUESTION})|(?P<answer>{_ANSWER})|(?P<quote>{_QUOTE}))"
    r"[ \t]*\d*[*_]*[ \t]*[:：][*_ \t]*",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the generator wrote it.

    Attributes:
        question: of the last turn.
        answer: of the last turn.
        quote: words of the source that the last answer stands on, as the generator copied them; may be empty.
        history: earlier (question, answer) pairs.
    """

    question: str
    answer: str
    quote: str = ""
    history: tuple[tuple[str, str], ...] = ()


def read_entries(text: str, turns: int = 1) -> tuple[list[Entry], str]:
    """The entries of an answer, and why there are none or fewer than there were meant to be; empty where all is well.

    Args:
        text: the answer.
        turns: questions and answers that an entry has.
    """
    objects, was_cut = find_objects(text)
    entries = [entry for entry in (_entry(one, turns) for one in objects) if entry]
    if not entries:
        entries = _marked(without_thoughts(text), turns)
    if entries:
        return entries, "the reply broke off" if was_cut else ""
    if not without_thoughts(text).strip():
        return [], "the reply is empty"
    if was_cut:
        return [], "the reply broke off"
    return [], "the reply holds no question and answer"


def _entry(value: dict[str, Any], turns: int) -> Entry | None:
    fields = _fields(value)
    listed = fields.get("turns")
    if isinstance(listed, list):
        pairs = _pairs(listed)
        if not pairs:
            return None
        (question, answer), history = pairs[-1], tuple(pairs[:-1])
        quote = _text(fields.get("quote")) or _text(_fields(listed[-1]).get("quote") if listed else "")
        return Entry(question, answer, quote, history)
    question, answer = _text(fields.get("question")), _text(fields.get("answer"))
    if context := _text(fields.get("context")):
        question = f"{question}\n{context}" if question else context
    return Entry(question, answer, _text(fields.get("quote"))) if question and answer else None


def _pairs(listed: list[Any]) -> list[tuple[str, str]]:
    """Questions and answers of a conversation: as pairs, or as messages in turn."""
    pairs: list[tuple[str, str]] = []
    asked = ""
    for item in listed:
        if not isinstance(item, dict):
            continue
        fields = _fields(item)
        question, answer = _text(fields.get("question")), _text(fields.get("answer"))
        role, content = str(item.get("role", item.get("from", ""))), _text(item.get("content", item.get("value")))
        if role in ("user", "human"):
            asked = content
        elif role in ("assistant", "gpt") and asked:
            question, answer, asked = asked, content, ""
        if question and answer:
            pairs.append((question, answer))
    return pairs


def _fields(value: Any) -> dict[str, Any]:
    """What we know of an object, under our names; the model's own may be numbered or capitalised."""
    if not isinstance(value, dict):
        return {}
    given = {re.sub(r"[\W\d_]+$", "", str(name).strip().lower()): item for name, item in value.items()}
    return {ours: given[name] for ours, names in _NAMES.items() for name in reversed(names) if name in given}


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _marked(text: str, turns: int) -> list[Entry]:
    """Entries of `Question: ... Answer: ... Quote: ...`; with several turns so many make one entry."""
    labels = list(_LABEL.finditer(text))
    found: list[list[str]] = []
    for place, label in enumerate(labels):
        end = labels[place + 1].start() if place + 1 < len(labels) else len(text)
        part = text[label.end() : end].strip().strip("*_ ").strip()
        kind = label.lastgroup
        if kind == "question":
            found.append([part, "", ""])
        elif found and kind == "answer" and not found[-1][1]:
            found[-1][1] = part
        elif found and kind == "quote" and not found[-1][2]:
            found[-1][2] = part
    whole = [(question, answer, quote) for question, answer, quote in found if question and answer]
    entries = []
    for place in range(0, len(whole) - turns + 1, turns):
        *before, (question, answer, quote) = whole[place : place + turns]
        entries.append(Entry(question, answer, quote, tuple((asked, said) for asked, said, _ in before)))
    return entries
