"""The chat as a part of a page: windows, message box, system, tools, thinking, generation keys, load and unload."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from tunesmith.core.types import Message, Role
from tunesmith.studio.asking import conversation_of, noted, reason_shown, says_something, together, without_answer
from tunesmith.studio.controls import generation_controls, sampling_of, values_of
from tunesmith.studio.kept import fill_untouched
from tunesmith.studio.seat import Answer, ModelSeat
from tunesmith.studio.shell import choices_in
from tunesmith.studio.shown import bubbles
from tunesmith.studio.words import say

if TYPE_CHECKING:
    from gradio.components import Component

    from tunesmith.config.schema import RunConfig
    from tunesmith.studio.shell import Studio

FRAME_SECONDS = 0.05
"""The window is drawn anew this often while an answer grows."""
DROP_SECONDS = 5.0
ROLES: tuple[Role, ...] = ("user", "tool")
_HEIGHT, _HEIGHT_IN_TAB = "max(320px, calc(100vh - 270px))", "max(260px, calc(100vh - 450px))"
"""Of a window: the box below it is in sight, too."""
TOOLS_HINT = '[{"name": "weather", "description": "...", "parameters": {"type": "object", "properties": {...}}}]'
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
THINKING = {"auto": None, "on": True, "off": False}
NOTHING = "&nbsp;"
CHAT_PAGE = "webchat"
"""Name of the page that is nothing but a chat, for what the browser keeps of it."""
Here = tuple[str | None, int]
"""One chat in one window of a browser."""
Choice = Callable[..., "tuple[RunConfig, RunConfig | None]"]
"""Values of a page's components -> what Load loads, and what is loaded beside it."""


@dataclass(frozen=True, slots=True)
class Chat:
    """The parts of a chat that a page may want to place or watch.

    Attributes:
        windows: the conversation, with each model that may answer.
        box: where the next message is written.
        status: which model is loaded.
        states: the conversations as Messages.
    """

    windows: list[gr.Chatbot]
    box: gr.Textbox
    status: gr.Markdown
    states: list[gr.State]


def chat(
    page: gr.Blocks,
    seat: ModelSeat,
    config_of: Choice,
    inputs: Sequence[Component] = (),
    *,
    studio: Studio | None = None,
    sides: int = 1,
) -> Chat:
    """Builds a chat where it is called, inside `with gr.Blocks()` or a tab of it.

    Args:
        page: the page around it.
        seat: the model; several chats and pages may share one.
        config_of: makes what Load loads out of the values of `inputs`.
        inputs: components elsewhere on the page.
        studio: whose language is spoken; without it English.
        sides: models that may answer beside each other, one or two.
    """
    return _Builder(page, seat, config_of, inputs, studio, sides).build()


class _Builder:
    """Components and their events; one object a chat, so that handlers need no globals."""

    def __init__(
        self,
        page: gr.Blocks,
        seat: ModelSeat,
        config_of: Choice,
        inputs: Sequence[Component],
        studio: Studio | None,
        sides: int,
    ) -> None:
        self.page, self.seat, self.config_of, self.inputs = page, seat, config_of, inputs
        self.studio, self.sides = studio, sides
        self.dropped: set[Here] = set()
        self.under_way: set[Here] = set()

    def build(self) -> Chat:
        """Lays the parts out and connects them."""
        self.language: Any = self.studio.language if self.studio else gr.State("en")
        self.states = [gr.State([]) for _ in range(self.sides)]
        with gr.Row(equal_height=True, elem_classes="chat-bar"):
            self.status = gr.Markdown(self._status("en"), elem_id="chat-status")
            self.load = self._button("load", variant="primary")
            self.unload = self._button("unload")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self._talk()
            with gr.Column(scale=1, min_width=330):
                self._beside()
        self._connect()
        return Chat(self.windows, self.box, self.status, self.states)

    def _said(self, part: Any, **keys: Any) -> Any:
        """Gives a component its texts, which follow the language where there is a choice."""
        if self.studio:
            return self.studio.worded(part, **keys)
        for name, key in keys.items():
            setattr(part, name, say(key))
        return part

    def _button(self, name: str, **facts: Any) -> gr.Button:
        button = gr.Button(size="sm", scale=0, min_width=96, elem_id=f"chat-{name}", **facts)
        return self._said(button, value=f"chat.{name}")

    def _talk(self) -> None:
        self.windows: list[gr.Chatbot] = []
        self.notes: list[gr.Markdown] = []
        with gr.Row(equal_height=False):
            for place in range(self.sides):
                with gr.Column(min_width=280, visible=not place, elem_id=f"chat-side-{place + 1}") as column:
                    self._window("" if not place else f"-{place + 1}")
                self.second = column
        self.box = self._said(
            gr.Textbox(show_label=False, lines=1, max_lines=12, autofocus=True, elem_id="chat-box"),
            label="chat.message",
            placeholder="chat.message_hint",
            submit_btn="chat.send",
        )
        with gr.Row(equal_height=True, elem_classes="chat-bar"):
            self.role = self._radio("role", ROLES, container=False, scale=3)
            self.clear = self._button("clear")

    def _window(self, suffix: str) -> None:
        window = gr.Chatbot(
            show_label=False,
            height=_HEIGHT_IN_TAB if self.studio else _HEIGHT,
            buttons=["copy", "copy_all"],
            layout="bubble",
            allow_file_downloads=False,
            feedback_options=None,
            elem_id=f"chat-window{suffix}",
        )
        self.windows.append(self._said(window, placeholder="chat.empty"))
        self.notes.append(gr.Markdown(NOTHING, elem_id=f"chat-note{suffix}", elem_classes="chat-note"))

    def _radio(self, name: str, values: Sequence[str], **facts: Any) -> gr.Radio:
        """A choice whose words follow the language, too."""
        radio = gr.Radio(choices_in("chat", values), value=values[0], elem_id=f"chat-{name}", **facts)
        if self.studio:
            return self.studio.worded(radio, choices=("chat", values), label=f"chat.{name}")
        return self._said(radio, label=f"chat.{name}")

    def _beside(self) -> None:
        self.system = self._said(gr.Textbox(lines=3, max_lines=8, elem_id="chat-system"), label="chat.system")
        self.thinking = self._radio("thinking", list(THINKING))
        with self._said(gr.Accordion(open=False), label="chat.tools"):
            self.tools = gr.Textbox(
                show_label=False, label="Tools", lines=5, max_lines=16, placeholder=TOOLS_HINT, elem_id="chat-tools"
            )
        with self._said(gr.Accordion(open=True), label="chat.generation"):
            self.controls = generation_controls(self.seat.defaults, self._said)

    def _connect(self) -> None:
        asked = [self.language, self.role, self.system, self.tools, self.thinking, *self.states, *self.controls]
        shown = [self.box, *self.windows, *self.states, *self.notes]
        ask: dict[str, Any] = {"concurrency_limit": None, **_PRIVATE}
        self.box.submit(self._ask, [self.box, *asked], shown, **ask)
        self.box.stop(self._stop, None, None, queue=False, **_PRIVATE)
        self.clear.click(self._clear, self.language, shown, **_PRIVATE)
        for window in self.windows:
            window.retry(self._again, asked, shown, **ask)
            window.undo(self._undo, [self.language, *self.states], shown, **_PRIVATE)
            window.clear(self._clear, self.language, shown, **_PRIVATE)
        facts = [self.status, self.load, self.unload, self.thinking, *([self.second] if self.sides > 1 else [])]
        self.sampling = gr.JSON(visible=False)  # of what is loaded, on its way to the controls
        settings = [*facts, self.sampling]
        self._fill(
            self.load.click(self._loading, self.language, [self.status, self.load, self.unload], **_PRIVATE).then(
                self._load, [self.language, *self.inputs], settings, **_PRIVATE
            )
        )
        self.unload.click(self._unload, self.language, facts, **_PRIVATE)
        self._fill(self.page.load(self._settings, self.language, settings, **_PRIVATE))
        if self.studio:
            self.studio.follow_language(self._facts, [self.language], facts)
        self.page.unload(self._stop)

    def _fill(self, event: Any) -> None:
        fill_untouched(event, self.sampling, self.controls, self.studio.name if self.studio else CHAT_PAGE)

    # ---- asking

    async def _ask(self, request: gr.Request, text: str, language: str, role: Role, *more: Any) -> AsyncIterator[Any]:
        if not text.strip():
            yield self._unchanged()
            return
        talks = [[*messages, Message(role, text)] for messages in self._talks(more)]
        async for update in self._answer(talks, text, language, more, request):
            yield update

    async def _again(self, request: gr.Request, language: str, role: Role, *more: Any) -> AsyncIterator[Any]:
        """Answers the last message once more."""
        talks = [without_answer(messages) for messages in self._talks(more)]
        if not all(talks[: len(self.seat.names)]):
            yield self._unchanged()
            return
        async for update in self._answer(talks, "", language, more, request):
            yield update

    def _talks(self, more: tuple[Any, ...]) -> list[list[Message]]:
        """The conversations among what `_connect` calls asked, behind system, tools and thinking."""
        return list(more[3 : 3 + self.sides])

    def _unchanged(self) -> list[Any]:
        return [gr.skip()] * (1 + 3 * self.sides)

    async def _answer(
        self, talks: list[list[Message]], text: str, language: str, more: tuple[Any, ...], request: gr.Request
    ) -> AsyncIterator[Any]:
        """Updates of what `_connect` calls shown; where it cannot be answered the text goes back into the box."""
        here = self._here(request)
        self.under_way.add(here)
        try:
            async for update in self._growing(here, talks, text, language, more):
                if here not in self.dropped:
                    yield update
        finally:
            self.under_way.discard(here)
            self.dropped.discard(here)

    async def _growing(
        self, here: Here, talks: list[list[Message]], text: str, language: str, more: tuple[Any, ...]
    ) -> AsyncIterator[Any]:
        system, tools, thinking, *rest = more
        count, drawn = max(1, len(self.seat.names)), 0.0
        answers, skipped = [Answer()] * count, [gr.skip()] * self.sides

        def windows() -> list[Any]:
            shown = [bubbles(talk, answer, language) for talk, answer in zip(talks, answers, strict=False)]
            return [*shown, *skipped][: self.sides]

        working = gr.update(value="", submit_btn=False, stop_btn=say("chat.stop", language))
        yield [working, *windows(), *skipped, *[NOTHING] * self.sides]
        try:
            sampling = sampling_of(rest[self.sides :], self.seat.defaults)
            asked = [conversation_of(system, talk, tools) for talk in talks[:count]]
            streams = [
                self.seat.answer((*here, place), one, sampling, THINKING[thinking], place=place)
                for place, one in enumerate(asked)
            ]
            async for place, answer in together(streams):
                answers[place] = answer
                if time.monotonic() - drawn >= FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield [gr.skip(), *windows(), *skipped, *skipped]
        except Exception as error:  # whatever it is, the page must not be left waiting
            kept = [talk[:-1] if text else talk for talk in talks]
            note = say("chat.cannot_answer", language, reason=reason_shown(error, language))
            yield [
                _given_back(text, language),
                *self._shown(kept, language),
                *kept,
                note,
                *[NOTHING] * (self.sides - 1),
            ]
            return
        drawn_last, notes = windows(), [noted(answer, language) for answer in answers]
        kept = [
            [*talk, answers[place].message] if place < count and says_something(answers[place]) else talk
            for place, talk in enumerate(talks)
        ]
        yield [_ready(language), *drawn_last, *kept, *[*notes, *[NOTHING] * self.sides][: self.sides]]

    def _shown(self, talks: Sequence[Sequence[Message]], language: str) -> list[Any]:
        return [bubbles(talk, language=language) for talk in talks]

    def _here(self, request: gr.Request) -> Here:
        return request.session_hash, id(self)

    def _stop(self, request: gr.Request) -> None:
        for place in range(self.sides):
            self.seat.stop((*self._here(request), place))

    async def _drop(self, request: gr.Request) -> None:
        """Ends the answer under way; nothing of it is shown after this."""
        here = self._here(request)
        if here not in self.under_way:
            return
        self.dropped.add(here)
        self._stop(request)
        deadline = time.monotonic() + DROP_SECONDS
        while here in self.under_way and time.monotonic() < deadline:
            await asyncio.sleep(FRAME_SECONDS)
        await asyncio.sleep(FRAME_SECONDS)  # what was on its way to the browser arrives first

    async def _undo(self, request: gr.Request, language: str, *talks: list[Message]) -> Any:
        """Takes the last question and its answer back; the question is in the box again."""
        await self._drop(request)
        asked = [without_answer(messages) for messages in talks]
        text = next((messages[-1].content for messages in asked if messages), "")
        kept = [messages[:-1] for messages in asked]
        return [_given_back(text, language), *self._shown(kept, language), *kept, *[NOTHING] * self.sides]

    async def _clear(self, request: gr.Request, language: str) -> Any:
        await self._drop(request)
        empty: list[Any] = [[] for _ in range(self.sides)]
        return [_ready(language), *empty, *empty, *[NOTHING] * self.sides]

    # ---- loading

    def _loading(self, language: str) -> Any:
        return say("chat.loading", language), gr.update(interactive=False), gr.update(interactive=False)

    async def _load(self, language: str, *values: Any) -> Any:
        try:
            config, beside = await asyncio.to_thread(self.config_of, *values)
            await asyncio.to_thread(self.seat.load, config, beside)
        except Exception as error:
            failed = say("chat.cannot_load", language, reason=reason_shown(error, language))
            return [failed, *self._settings(language)[1:]]
        return self._settings(language)

    async def _unload(self, language: str) -> Any:
        await asyncio.to_thread(self.seat.unload)
        return self._facts(language)

    def _settings(self, language: str) -> Any:
        return [*self._facts(language), values_of(self.seat.defaults)]

    def _facts(self, language: str) -> list[Any]:
        is_loaded = self.seat.name is not None
        info = None if self.seat.thinks else say("chat.not_of_model", language)
        facts = [
            self._status(language),
            gr.update(interactive=not is_loaded or self.studio is not None),
            gr.update(interactive=is_loaded),
            gr.update(interactive=self.seat.thinks, info=info) if is_loaded else gr.skip(),
        ]
        return [*facts, gr.update(visible=len(self.seat.names) > 1)] if self.sides > 1 else facts

    def _status(self, language: str) -> str:
        if not self.seat.name:
            return say("chat.nothing", language)
        shared = say("chat.shared", language) if self.seat.shares_base else ""
        return say("chat.loaded", language, name=self.seat.name) + shared


def _ready(language: str) -> Any:
    """The box takes a message; what was typed meanwhile stays."""
    return gr.update(submit_btn=say("chat.send", language), stop_btn=False)


def _given_back(text: str, language: str) -> Any:
    return gr.update(value=text, submit_btn=say("chat.send", language), stop_btn=False)
