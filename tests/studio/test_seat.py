"""The model behind the pages: asked by several at once, stopped, unloaded; and how a conversation is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving.conftest import wait_until
from tests.studio.conftest import Model, make_model

from tunesmith.core.errors import ModelError
from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.inference.engine import SamplingParams
from tunesmith.studio.seat import Answer
from tunesmith.studio.shown import bubbles, visible

SAMPLING = SamplingParams(max_new_tokens=200)


@pytest.fixture(scope="module")
def shared() -> Iterator[Model]:
    made = make_model()
    yield made
    made.seat.unload()


@pytest.fixture
def model(shared: Model) -> Model:
    """One model for all tests, loaded and as new for each."""
    shared.says("Hello!")
    shared.engine.pause = 0.0
    shared.failing.clear()
    if shared.seat.name is None:
        shared.seat.load(shared.config)
    return shared


def said(text: str) -> Conversation:
    return Conversation((Message("user", text),))


async def answers(model: Model, text: str = "Hi", page: Any = "page", **more: Any) -> list[Answer]:
    return [answer async for answer in model.seat.answer(page, said(text), SAMPLING, **more)]


def test_an_answer_grows(model: Model) -> None:
    model.says("<think>\nHm.\n</think>\n\nthe quick fox")
    found = asyncio.run(answers(model))
    assert [len(one.content) for one in found] == sorted(len(one.content) for one in found)
    last = found[-1]
    assert (last.reasoning, last.content, last.finish_reason) == ("Hm.", "the quick fox", "stop")
    assert last.message == Message("assistant", "the quick fox", (), "Hm.")
    assert last.n_tokens == len(found)
    assert last.seconds >= last.thought_seconds


def test_thinking_is_asked_for_one_answer_at_a_time(model: Model) -> None:
    asyncio.run(answers(model, thinking=False))
    assert model.prompt().endswith("<think>\n\n</think>\n\n")
    asyncio.run(answers(model))
    assert model.prompt().endswith("assistant\n")
    assert model.seat.thinks


def test_stop_keeps_what_has_come(model: Model) -> None:
    model.says("the quick brown fox " * 50)
    model.engine.pause = 0.01

    async def stop_early() -> list[Answer]:
        found = []
        async for answer in model.seat.answer("page", said("Hi"), SAMPLING):
            found.append(answer)
            if len(found) == 5:
                model.seat.stop("another page")
            if len(found) == 8:
                model.seat.stop("page")
        return found

    found = asyncio.run(stop_early())
    assert found[-1].finish_reason == "stopped"
    assert 8 <= found[-1].n_tokens < 100
    wait_until(lambda: model.seat.n_running == 0)


def test_leaving_frees_the_place(model: Model) -> None:
    model.says("the quick brown fox " * 50)
    model.engine.pause = 0.01

    async def leave() -> None:
        stream = model.seat.answer("page", said("Hi"), SAMPLING)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    wait_until(lambda: model.seat.n_running == 0)


def test_without_a_model(model: Model) -> None:
    model.seat.unload()
    model.seat.unload()
    assert model.seat.name is None
    with pytest.raises(ModelError, match="press Load first"):
        asyncio.run(answers(model))
    with model.seat._lock, pytest.raises(ModelError, match="being loaded"):  # somebody pressed it
        asyncio.run(answers(model))
    model.failing.append("no such folder")
    with pytest.raises(ModelError, match="no such folder"):
        model.seat.load(model.config)
    assert model.seat.name is None
    model.failing.clear()
    model.seat.load(model.config)
    assert asyncio.run(answers(model))[-1].content == "Hello!"


def test_unloading_ends_answers(model: Model) -> None:
    model.says("the quick brown fox " * 50)
    model.engine.pause = 0.01

    async def unload_meanwhile() -> None:
        async for answer in model.seat.answer("page", said("Hi"), SAMPLING):
            if answer.n_tokens == 3:
                await asyncio.to_thread(model.seat.unload)

    with pytest.raises(ModelError, match="was unloaded"):
        asyncio.run(unload_meanwhile())


def test_special_tokens_are_shown_where_the_file_says_so() -> None:
    for skips, expected in ((True, "ab"), (False, "a<|im_start|>b")):
        model = make_model(skip_special_tokens=skips)
        model.says("a<|im_start|>b")
        assert asyncio.run(answers(model))[-1].content == expected
        model.seat.unload()


def test_bubbles() -> None:
    messages = [
        Message("user", "a <b> `<c>`"),
        Message("assistant", "Let me see.", (ToolCall("weather", {"city": "Köln"}),), "Where?"),
        Message("tool", '{"rain": "```"}'),
    ]
    question, thought, content, call, result = bubbles(messages)
    assert question == {"role": "user", "content": "a &lt;b> `<c>`"}
    assert thought["metadata"] == {"title": "Thought", "status": "done"}
    assert content["content"] == "Let me see."
    assert call["metadata"]["title"] == "Call of weather"
    assert '"city": "Köln"' in call["content"]
    assert result["content"].startswith("````json\n")  # a longer fence than what it holds
    growing = bubbles([], Answer(reasoning="Hm", thought_seconds=1.25))
    assert growing[0]["metadata"] == {"title": "Thinking", "status": "pending", "duration": 1.2}
    assert bubbles([], Answer())[0]["content"] == "…"
    assert bubbles([], Answer(finish_reason="stop"))[0]["content"] == "*(no text)*"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>", "&lt;script>"),
        ("`<a>` <b>", "`<a>` &lt;b>"),
        ("```\n<a>\n```\n<b>", "```\n<a>\n```\n&lt;b>"),
        ("```\n<a> not closed yet", "```\n<a> not closed yet"),
        ("a `<b\n<c>` d", "a `&lt;b\n&lt;c>` d"),
    ],
)
def test_tags_are_text(text: str, expected: str) -> None:
    assert visible(text) == expected
