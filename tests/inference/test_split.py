"""Text in pieces of any size comes out as the same thought, content and held-back rest."""

from __future__ import annotations

import itertools
import random

import pytest

from tunesmith.data.tools import FORMATS, load_tool_format
from tunesmith.inference.split import CallWatch, ThoughtSplitter, overlap

WORDS = ("<think>\n", "\n</think>\n\n")


def parted(text: str, cuts: list[int], *, is_inside: bool = False) -> tuple[str, str]:
    splitter = ThoughtSplitter(WORDS, is_inside)
    edges = [0, *cuts, len(text)]
    pieces = [piece for start, end in itertools.pairwise(edges) for piece in splitter.push(text[start:end])]
    pieces += splitter.finish()
    assert all(text for _, text in pieces)
    return tuple("".join(text for kind, text in pieces if kind == wanted) for wanted in ("reasoning", "content"))  # type: ignore[return-value]


CASES = [
    ("<think>\nwhy\n\nso\n</think>\n\nBecause.\n", False, ("why\n\nso", "Because.\n")),
    ("<think></think>Because.", False, ("", "Because.")),
    ("\n <think>why", False, ("why", "")),
    ("No thought, 1 < 2 <think> later", False, ("", "No thought, 1 < 2 <think> later")),
    ("why\n</think>\n\nBecause.", True, ("why", "Because.")),
    ("why </thin", True, ("why </thin", "")),
    ("<thin", False, ("", "<thin")),
    ("  ", False, ("", "  ")),
    ("", False, ("", "")),
    ("<think>a</think>\n\n</think> b", False, ("a", "</think> b")),
]


@pytest.mark.parametrize(("text", "is_inside", "expected"), CASES)
def test_a_thought_and_an_answer(text: str, is_inside: bool, expected: tuple[str, str]) -> None:
    rng = random.Random(0)
    assert parted(text, [], is_inside=is_inside) == expected
    assert parted(text, list(range(1, len(text))), is_inside=is_inside) == expected
    for _ in range(20):
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(3))
        assert parted(text, cuts, is_inside=is_inside) == expected


def test_without_marks_everything_is_content() -> None:
    splitter = ThoughtSplitter(None)
    assert splitter.push("<think>a</think>") == [("content", "<think>a</think>")]
    assert splitter.push("") == splitter.finish() == []


@pytest.mark.parametrize(
    ("text", "sent", "rest"),
    [
        ("a\n<tool_call>x</tool_call>", "a", "\n<tool_call>x</tool_call>"),
        ("a < b", "a < b", ""),
        ("a <tool", "a ", "<tool"),
        ("a\n\n", "a", "\n\n"),
        ("<tool_call>", "", "<tool_call>"),
    ],
)
def test_what_may_be_a_call_is_kept(text: str, sent: str, rest: str) -> None:
    for step in (1, 2, 100):
        watch = CallWatch(("<tool_call>",))
        out = "".join(watch.push(text[start : start + step]) for start in range(0, len(text), step))
        assert (out, watch.rest()) == (sent, rest)
        assert watch.text == text


def test_without_tools_nothing_is_kept_and_where_any_text_may_be_a_call_all_is() -> None:
    free, held = CallWatch(None), CallWatch(())
    assert free.push("<tool_call>") == "<tool_call>"
    assert free.rest() == ""
    assert held.push("get_weather\n{") == ""
    assert held.rest() == "get_weather\n{"


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"glm4"}))
def test_every_format_says_what_its_calls_begin_with(name: str) -> None:
    from tunesmith.core.types import ToolCall

    found = load_tool_format(name)
    text = found.calls_text([ToolCall("f", {"a": "b"})], False)
    assert found.openings
    assert text.lstrip("\n").startswith(found.openings)


def test_overlap() -> None:
    assert overlap("abc<to", "<tool>") == 3
    assert overlap("abc<tool>", "<tool>") == 0
    assert overlap("", "<tool>") == 0
