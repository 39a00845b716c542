"""The chat tab: runs and checkpoints answer, two of them beside each other over one base."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.serving.conftest import wait_until
from tests.studio.conftest import Tab

from tunesmith.core.errors import ModelError, TunesmithError
from tunesmith.core.types import Conversation, Message
from tunesmith.inference.engine import SamplingParams
from tunesmith.studio.asking import together
from tunesmith.studio.chat_tab import chat_config
from tunesmith.studio.seat import Answer, ModelSeat, find_separable
from tunesmith.studio.workspace import Workspace

GREEDY = SamplingParams(max_new_tokens=8, do_sample=False)
ASKED = Conversation((Message("user", "who are you"),))


@pytest.fixture
def seat() -> Iterator[ModelSeat]:
    made = ModelSeat()
    yield made
    made.unload()


def config(workspace: Workspace, run: str | None = None, model: str | None = "models/tiny", **more: str) -> Any:
    return chat_config(workspace, model, run, "chatml", more)


def answered(seat: ModelSeat) -> list[str]:
    """What every loaded model says, asked together."""

    async def ask() -> list[str]:
        last: dict[int, Answer] = {}
        streams = [seat.answer(("page", n), ASKED, GREEDY, place=n) for n in range(len(seat.names))]
        async for place, answer in together(streams):
            last[place] = answer
        return [last[place].content for place in sorted(last)]

    return asyncio.run(ask())


def test_two_adapters_answer_over_one_base_as_each_does_alone(tiny_workspace: Workspace, seat: ModelSeat) -> None:
    one = config(tiny_workspace, "saves/one", seed="1", temperature="0.5")
    two = config(tiny_workspace, "saves/two/checkpoint-2", seed="2")
    seat.load(one, two)
    assert seat.shares_base
    assert seat.names == ("models/tiny + saves/one", "models/tiny + saves/two/checkpoint-2")
    both = answered(seat)
    alone = []
    for each in (one, two):
        seat.load(each)
        assert not seat.shares_base
        alone += answered(seat)
    assert both == alone
    assert both[0] != both[1]


def test_the_bare_base_beside_its_adapter(tiny_workspace: Workspace, seat: ModelSeat) -> None:
    base = config(tiny_workspace)
    seat.load(base, config(tiny_workspace, "saves/one"))
    assert seat.shares_base
    both = answered(seat)
    seat.load(base)
    assert answered(seat) == both[:1]
    assert both[0] != both[1]


def test_different_bases_are_loaded_twice(tiny_workspace: Workspace, seat: ModelSeat) -> None:
    base, other = config(tiny_workspace), config(tiny_workspace, infer_dtype="bfloat16")
    assert find_separable(base, other) is None
    seat.load(base, other)
    assert len(seat.names) == 2
    assert not seat.shares_base
    assert len(answered(seat)) == 2
    wait_until(lambda: seat.n_running == 0)


def test_what_is_loaded(tiny_workspace: Workspace) -> None:
    found = config(tiny_workspace, "saves/one", infer_dtype="float32")
    assert (found.command, found.model_name_or_path, found.infer_dtype) == ("webchat", "models/tiny", "float32")
    with pytest.raises(TunesmithError, match="outside"):
        config(tiny_workspace, "/etc")
    with pytest.raises(TunesmithError, match="outside"):
        config(tiny_workspace, None, "../../model")
    with pytest.raises(TunesmithError, match="no model is chosen"):
        config(tiny_workspace, None, "")


def test_a_second_that_cannot_be_loaded_leaves_nothing(tiny_workspace: Workspace, seat: ModelSeat) -> None:
    gone = config(tiny_workspace).replace(model_name_or_path="models/gone/away")
    with pytest.raises(ModelError):
        seat.load(config(tiny_workspace), gone)
    assert seat.name is None


async def counted(count: int, error: Exception | None = None) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    if error:
        raise error


def test_streams_come_together_and_end_together() -> None:
    async def all_of(*streams: AsyncIterator[int]) -> list[tuple[int, int]]:
        return [item async for item in together(streams)]

    found = asyncio.run(all_of(counted(3), counted(1)))
    assert sorted(found) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    with pytest.raises(ModelError, match="no"):
        asyncio.run(all_of(counted(1000), counted(1, ModelError("no"))))


@pytest.mark.slow
def test_one_run_and_two_beside_each_other_in_the_browser(tab: Tab, studio_url: str) -> None:
    tab.open(studio_url, "Chat")
    tab.choose("chat-run", "saves/one")
    tab.page.click("#chat-load")
    tab.until(lambda: "saves/one is loaded" in tab.text("chat-status"))
    assert not tab.page.is_visible("#chat-window-2")
    tab.fill("chat-max_new_tokens", "6")
    tab.page.fill("#chat-box textarea", "who are you")
    tab.page.press("#chat-box textarea", "Enter")
    tab.until(lambda: "tokens/s" in tab.text("chat-note"))
    tab.choose("chat-second", "saves/two")
    tab.page.click("#chat-load")
    tab.until(lambda: "one base in memory" in tab.text("chat-status"))
    tab.page.wait_for_selector("#chat-window-2")
    tab.page.click("#chat-clear")
    tab.fill("chat-max_new_tokens", "6")
    tab.page.fill("#chat-system textarea", "Be kind.")
    tab.page.fill("#chat-box textarea", "the lazy dog")
    tab.page.press("#chat-box textarea", "Enter")
    tab.until(lambda: "tokens/s" in tab.text("chat-note-2"))
    assert "the lazy dog" in tab.text("chat-window")
    assert "the lazy dog" in tab.text("chat-window-2")
    tab.page.click("#studio-language label:has-text('中文')")
    tab.until(lambda: "共用一个基座" in tab.text("chat-status"))
    tab.page.click("#chat-unload")
    tab.until(lambda: "未加载模型" in tab.text("chat-status"))


@pytest.mark.slow
def test_the_chat_tab_on_a_phone(phone: Tab, studio_url: str) -> None:
    phone.open(studio_url, "Chat")
    phone.page.wait_for_selector("#chat-box textarea")
