"""The chat as a part of a page: window, message box, system, tools, thinking, generation keys, load and unload."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from tunesmith.core.errors import DataError, Problem, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Message, Role
from tunesmith.data.formats import RowError
from tunesmith.data.formats.tools import parse_tools
from tunesmith.studio.controls import generation_controls, sampling_of, values_of
from tunesmith.studio.seat import Answer, ModelSeat
from tunesmith.studio.shown import bubbles, visible

if TYPE_CHECKING:
    from gradio.components import Component

    from tunesmith.config.schema import RunConfig

_logger = get_logger(__name__)
FRAME_SECONDS = 0.05
"""The window is drawn anew this often while an answer grows."""
DROP_SECONDS = 5.0
ROLES = {"You": "user", "Tool result": "tool"}
TOOLS_HINT = '[{"name": "weather", "description": "...", "parameters": {"type": "object", "properties": {...}}}]'
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
THINKING = {"auto": None, "on": True, "off": False}
NOTHING = "&nbsp;"
Here = tuple[str | None, int]
"""One chat in one window of a browser."""


@dataclass(frozen=True, slots=True)
class Chat:
    """The parts of a chat that a page may want to place or watch.

    Attributes:
        window: the conversation.
        box: where the next message is written.
        status: which model is loaded.
        state: the conversation as Messages.
    """

    window: gr.Chatbot
    box: gr.Textbox
    status: gr.Markdown
    state: gr.State


def chat(
    page: gr.Blocks, seat: ModelSeat, config_of: Callable[..., RunConfig], inputs: Sequence[Component] = ()
) -> Chat:
    """Builds a chat where it is called, inside `with gr.Blocks()` or a tab of it.

    Args:
        page: the page around it.
        seat: the model; several chats and pages may share one.
        config_of: makes what Load loads out of the values of `inputs`.
        inputs: components elsewhere on the page.
    """
    return _Builder(page, seat, config_of, inputs).build()


class _Builder:
    """Components and their events; one object a chat, so that handlers need no globals."""

    def __init__(
        self, page: gr.Blocks, seat: ModelSeat, config_of: Callable[..., RunConfig], inputs: Sequence[Component]
    ) -> None:
        self.page, self.seat, self.config_of, self.inputs = page, seat, config_of, inputs
        self.dropped: set[Here] = set()
        self.under_way: set[Here] = set()

    def build(self) -> Chat:
        """Lays the parts out and connects them."""
        self.state = gr.State([])
        with gr.Row(equal_height=True, elem_classes="chat-bar"):
            self.status = gr.Markdown(self._status(), elem_id="chat-status")
            self.load = gr.Button("Load", variant="primary", size="sm", scale=0, min_width=96, elem_id="chat-load")
            self.unload = gr.Button("Unload", size="sm", scale=0, min_width=96, elem_id="chat-unload")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self._talk()
            with gr.Column(scale=1, min_width=330):
                self._sides()
        self._connect()
        return Chat(self.window, self.box, self.status, self.state)

    def _talk(self) -> None:
        self.window = gr.Chatbot(
            show_label=False,
            height="max(320px, calc(100vh - 270px))",
            buttons=["copy", "copy_all"],
            layout="bubble",
            placeholder="Write a message below.",
            allow_file_downloads=False,
            feedback_options=None,
            elem_id="chat-window",
        )
        self.note = gr.Markdown(NOTHING, elem_id="chat-note")
        self.box = gr.Textbox(
            show_label=False,
            label="Message",
            placeholder="Message (Shift+Enter: new line)",
            submit_btn=True,
            lines=1,
            max_lines=12,
            autofocus=True,
            elem_id="chat-box",
        )
        with gr.Row(equal_height=True, elem_classes="chat-bar"):
            self.role = gr.Radio(
                list(ROLES), value="You", label="I write as", container=False, elem_id="chat-role", scale=3
            )
            self.clear = gr.Button("Clear", size="sm", scale=0, min_width=96, elem_id="chat-clear")

    def _sides(self) -> None:
        self.system = gr.Textbox(label="System prompt", lines=3, max_lines=8, elem_id="chat-system")
        self.thinking = gr.Radio(list(THINKING), value="auto", label="Thinking", elem_id="chat-thinking")
        with gr.Accordion("Tools", open=False):
            self.tools = gr.Textbox(
                show_label=False, label="Tools", lines=5, max_lines=16, placeholder=TOOLS_HINT, elem_id="chat-tools"
            )
        with gr.Accordion("Generation", open=True):
            self.controls = generation_controls(self.seat.defaults)

    def _connect(self) -> None:
        asked = [self.role, self.state, self.system, self.tools, self.thinking, *self.controls]
        shown = [self.window, self.box, self.state, self.note]
        ask: dict[str, Any] = {"concurrency_limit": None, **_PRIVATE}
        self.box.submit(self._ask, [self.box, *asked], shown, **ask)
        self.window.retry(self._again, asked, shown, **ask)
        self.box.stop(self._stop, None, None, queue=False, **_PRIVATE)
        self.window.undo(self._undo, [self.state], shown, **_PRIVATE)
        self.clear.click(self._clear, None, shown, **_PRIVATE)
        self.window.clear(self._clear, None, shown, **_PRIVATE)
        facts = [self.status, self.load, self.unload, self.thinking]
        settings = [*facts, *self.controls]
        self.load.click(self._loading, None, [self.status, self.load, self.unload], **_PRIVATE).then(
            self._load, list(self.inputs), settings, **_PRIVATE
        )
        self.unload.click(self._unload, None, facts, **_PRIVATE)
        self.page.load(self._settings, None, settings, **_PRIVATE)
        self.page.unload(self._stop)

    # ---- asking

    async def _ask(
        self, request: gr.Request, text: str, role: str, messages: list[Message], *more: Any
    ) -> AsyncIterator[Any]:
        if not text.strip():
            yield [gr.skip()] * 4
            return
        said: Role = "tool" if ROLES[role] == "tool" else "user"
        async for update in self._answer([*messages, Message(said, text)], text, more, request):
            yield update

    async def _again(self, request: gr.Request, role: str, messages: list[Message], *more: Any) -> AsyncIterator[Any]:
        """Answers the last message once more."""
        asked = _without_answer(messages)
        if not asked:
            yield [gr.skip()] * 4
            return
        async for update in self._answer(asked, "", more, request):
            yield update

    async def _answer(
        self, messages: list[Message], text: str, more: tuple[Any, ...], request: gr.Request
    ) -> AsyncIterator[Any]:
        """Updates of what `_connect` calls shown; where it cannot be answered the text goes back into the box."""
        here = self._here(request)
        self.under_way.add(here)
        try:
            async for update in self._growing(here, messages, text, more):
                if here not in self.dropped:
                    yield update
        finally:
            self.under_way.discard(here)
            self.dropped.discard(here)

    async def _growing(
        self, here: Here, messages: list[Message], text: str, more: tuple[Any, ...]
    ) -> AsyncIterator[Any]:
        system, tools, thinking, *values = more
        working = gr.update(value="", submit_btn=False, stop_btn=True)
        answer, drawn = Answer(), 0.0
        yield bubbles(messages, answer), working, gr.skip(), NOTHING
        try:
            conversation = _conversation(system, messages, tools)
            sampling = sampling_of(values, self.seat.defaults)
            async for answer in self.seat.answer(here, conversation, sampling, THINKING[thinking]):
                if time.monotonic() - drawn >= FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield bubbles(messages, answer), gr.skip(), gr.skip(), gr.skip()
        except Exception as error:  # whatever it is, the page must not be left waiting
            kept = messages[:-1] if text else messages
            yield bubbles(kept), _given_back(text), kept, f"**This cannot be answered:** {_told(error)}"
            return
        kept = [*messages, answer.message] if _says_something(answer) else messages
        yield bubbles(messages, answer), _ready(), kept, _noted(answer)

    def _here(self, request: gr.Request) -> Here:
        return request.session_hash, id(self)

    def _stop(self, request: gr.Request) -> None:
        self.seat.stop(self._here(request))

    async def _drop(self, request: gr.Request) -> None:
        """Ends the answer under way; nothing of it is shown after this."""
        here = self._here(request)
        if here not in self.under_way:
            return
        self.dropped.add(here)
        self.seat.stop(here)
        deadline = time.monotonic() + DROP_SECONDS
        while here in self.under_way and time.monotonic() < deadline:
            await asyncio.sleep(FRAME_SECONDS)
        await asyncio.sleep(FRAME_SECONDS)  # what was on its way to the browser arrives first

    async def _undo(self, request: gr.Request, messages: list[Message]) -> Any:
        """Takes the last question and its answer back; the question is in the box again."""
        await self._drop(request)
        asked = _without_answer(messages)
        return bubbles(asked[:-1]), _given_back(asked[-1].content if asked else ""), asked[:-1], NOTHING

    async def _clear(self, request: gr.Request) -> Any:
        await self._drop(request)
        return [], _ready(), [], NOTHING

    # ---- loading

    def _loading(self) -> Any:
        return "Loading …", gr.update(interactive=False), gr.update(interactive=False)

    async def _load(self, *values: Any) -> Any:
        try:
            config = self.config_of(*values)
            await asyncio.to_thread(self.seat.load, config)
        except Exception as error:
            return [f"**This cannot be loaded:** {_told(error)}", *self._settings()[1:]]
        return self._settings()

    async def _unload(self) -> Any:
        await asyncio.to_thread(self.seat.unload)
        return self._facts()

    def _settings(self) -> Any:
        return [*self._facts(), *values_of(self.seat.defaults)]

    def _facts(self) -> list[Any]:
        is_loaded = self.seat.name is not None
        thinking = gr.update(interactive=self.seat.thinks, info=None if self.seat.thinks else "not of this model")
        return [
            self._status(),
            gr.update(interactive=not is_loaded),
            gr.update(interactive=is_loaded),
            thinking if is_loaded else gr.skip(),
        ]

    def _status(self) -> str:
        return f"**{self.seat.name}** is loaded" if self.seat.name else "No model is loaded"


def _told(error: Exception) -> str:
    """As Markdown that shows the words as they are."""
    if isinstance(error, TunesmithError):
        return visible(str(error)).replace("\n", "  \n")
    _logger.error("the page failed", exc_info=error)
    return "Tunesmith failed on this; its log says why"


def _ready() -> Any:
    """The box takes a message; what was typed meanwhile stays."""
    return gr.update(submit_btn=True, stop_btn=False)


def _given_back(text: str) -> Any:
    return gr.update(value=text, submit_btn=True, stop_btn=False)


def _noted(answer: Answer) -> str:
    """Length, speed, and how it ended where that is not by itself."""
    ends = {"length": " · cut off at max_new_tokens or the model's context", "stopped": " · stopped"}
    speed = answer.n_tokens / answer.seconds if answer.seconds else 0.0
    return f"{answer.n_tokens} tokens · {speed:.1f} tokens/s{ends.get(answer.finish_reason or '', '')}"


def _says_something(answer: Answer) -> bool:
    return bool(answer.content or answer.reasoning or answer.calls)


def _without_answer(messages: Sequence[Message]) -> list[Message]:
    """Up to the last message that the user or a tool wrote."""
    kept = list(messages)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept


def _conversation(system: str, messages: Sequence[Message], tools: str) -> Conversation:
    """What is asked of the model.

    Raises:
        DataError: the tools are not what they should be.
    """
    try:
        schemas = parse_tools(tools, "tools")
    except RowError as error:
        raise DataError([Problem(error.reason, error.column, error.fix)]) from error
    before = [Message("system", system)] if system and system.strip() else []
    return Conversation((*before, *messages), schemas)
