"""What a template writes around plain texts, found once for each sequence of roles and filled in for each conversation.

A frame is rendered by `render.py` itself, with marks in the place of contents; where a content could change what stands
around it (calls, tools, thoughts, empty texts), there is none, and the conversation is rendered as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Role, Segment
from tunesmith.data.render import render
from tunesmith.data.settings import RenderSettings, TokenNames
from tunesmith.data.spans import masked_answers
from tunesmith.data.template import Template
from tunesmith.data.tools.base import SHIELD

_OPEN, _CLOSE = "\uf8f4", "\uf8f5"
"""Around the number of a content, in a frame that is being made."""
Shape = tuple[tuple[Role, bool | None], ...]
"""Role and `trained` of each message."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The segments of a conversation with its contents left open.

    Attributes:
        segments: in order.
        places: for each segment the message whose content it is; None where the template writes it.
        n_masked: answers without loss; see `masked_answers`.
    """

    segments: tuple[Segment, ...]
    places: tuple[int | None, ...]
    n_masked: int


@dataclass(frozen=True, slots=True)
class Filled:
    """One conversation in its frame: what `Encoder.segments` gives, not yet written out."""

    frame: Frame
    contents: tuple[str, ...]

    def segments(self) -> list[Segment]:
        """The segments, written out."""
        return [
            part if place is None else Segment(self.contents[place], part.trained, part.literal, part.breaks)
            for part, place in zip(self.frame.segments, self.frame.places, strict=True)
        ]


class Frames:
    """The frames of one template under the settings of a run.

    Args:
        template: named; others are programs, which may look at contents.
        settings: of the run.
        names: of bos and eos.
    """

    def __init__(self, template: Template, settings: RenderSettings, names: TokenNames) -> None:
        self._template, self._settings, self._names = template, settings, names
        self._known: dict[Shape, Frame | None] = {}
        self._marks = (SHIELD, *template.answer_marks)
        self._strips = frozenset(template.strip)

    def fill(self, conversation: Conversation) -> Filled | None:
        """The conversation in its frame; None where it must be rendered by itself."""
        if self._template.reasons or conversation.tools is not None:
            return None
        contents = []
        for message in conversation.messages:
            if message.tool_calls or message.reasoning_content is not None:
                return None
            text = message.content.strip() if message.role in self._strips else message.content
            if not text or _OPEN in text:
                return None
            if message.role == "assistant":
                for mark in self._marks:
                    if mark in text:
                        return None
            contents.append(text)
        shape = tuple([(message.role, message.trained) for message in conversation.messages])
        if shape not in self._known:
            self._known[shape] = self._make(shape)
        frame = self._known[shape]
        return None if frame is None else Filled(frame, tuple(contents))

    def _make(self, shape: Shape) -> Frame | None:
        texts = [f"{_OPEN}{index}{_CLOSE}" for index in range(len(shape))]
        messages = [Message(role, text, trained=on) for (role, on), text in zip(shape, texts, strict=True)]
        chat = Conversation(tuple(messages))
        try:
            segments = render(self._template, chat, self._settings, self._names)
        except TemplateError:
            return None
        places = [texts.index(part.text) if part.text in texts and not part.literal else None for part in segments]
        around = "".join(part.text for part, place in zip(segments, places, strict=True) if place is None)
        if _OPEN in around or sorted(_numbers(places)) != list(range(len(shape))):
            return None
        return Frame(tuple(segments), tuple(places), masked_answers(chat, segments, self._settings))


def _numbers(places: Sequence[int | None]) -> list[int]:
    return [place for place in places if place is not None]
