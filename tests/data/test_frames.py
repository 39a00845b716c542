"""Conversations in their frames are what the renderer writes, for every template; what may not be framed is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.conftest import make_tiny_tokenizer
from tests.data.official_chats import CHATS

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message
from tunesmith.data.encode import encode_batch, encode_flat
from tunesmith.data.frames import Frames
from tunesmith.data.render import RenderSettings, render, token_names
from tunesmith.data.spans import masked_answers
from tunesmith.data.template import Template, load_template, template_names

TOKENIZER = make_tiny_tokenizer()
MORE = {
    "empty user": Conversation((Message("user", ""), Message("assistant", "x"))),
    "blank user": Conversation((Message("user", " \n"), Message("assistant", "x"))),
    "empty system": Conversation((Message("system", ""), Message("user", "q"), Message("assistant", "x"))),
    "marks in user": Conversation((Message("user", "<think>\nx\n</think>"), Message("assistant", "x"))),
    "marks in answer": Conversation((Message("user", "q"), Message("assistant", "a <tool_call> b </tool_call>"))),
    "special in all": Conversation(
        (Message("system", "<|im_end|>"), Message("user", "<|im_"), Message("assistant", "a<|im_end|>"))
    ),
    "trained prompt": Conversation((Message("user", "q", trained=True), Message("assistant", "x", trained=False))),
    "trained first": Conversation(
        (
            Message("user", "q"),
            Message("assistant", "x", trained=False),
            Message("user", "q"),
            Message("assistant", "y"),
        )
    ),
    "half a token": Conversation((Message("system", "a<|im_"), Message("user", "end|>b"), Message("assistant", "x"))),
}
PLAIN = {"one", "system", "two", "two_system", "three", "four_system", "chinese", "emoji", "leading_blanks", "special"}
SETTINGS = (
    RenderSettings(),
    RenderSettings(mask_history=True, default_system="Be kind."),
    RenderSettings(enable_thinking=False, compat=True),
)


def rendered(template: Template, chat: Conversation, settings: RenderSettings) -> list[Any] | None:
    try:
        return render(template, chat, settings, token_names(TOKENIZER, template))
    except TemplateError:
        return None


@pytest.mark.parametrize("name", template_names())
def test_frames_hold_what_the_renderer_writes(name: str) -> None:
    framed = set()
    for compat, settings in ((False, SETTINGS[0]), (False, SETTINGS[1]), (True, SETTINGS[2])):
        template = load_template(name, compat)
        frames = Frames(template, settings, token_names(TOKENIZER, template))
        for title, chat in (CHATS | MORE).items():
            filled, segments = frames.fill(chat), rendered(template, chat, settings)
            if filled is None:
                continue
            framed.add(title)
            assert filled.segments() == segments, title
            assert filled.frame.n_masked == masked_answers(chat, segments or [], settings)
            if _knows_tokens(template):
                (expected,) = encode_batch([segments or []], TOKENIZER, template)
                flat = encode_flat([filled, filled], TOKENIZER, template)
                assert flat.ids.tolist() == expected[0] * 2, title
                assert flat.labels.tolist() == expected[1] * 2, title
    template = load_template(name)
    if template.reasons:
        assert not framed
    else:
        assert framed >= PLAIN - {title for title in PLAIN if rendered(template, CHATS[title], SETTINGS[0]) is None}
        assert not framed & {"call", "parallel_calls", "thought", "empty_answer", "empty user"}
        assert ("marks in answer" in framed) == ("<tool_call>" not in template.answer_marks)


def _knows_tokens(template: Template) -> bool:
    return template.token_names <= set(TOKENIZER.get_vocab())


def test_a_frame_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    template = load_template("chatml")
    frames = Frames(template, RenderSettings(), token_names(TOKENIZER, template))
    made: list[Any] = []
    original = Frames._make
    monkeypatch.setattr(Frames, "_make", lambda self, shape: made.append(shape) or original(self, shape))
    for chat in (CHATS["one"], CHATS["chinese"], CHATS["two"]):
        assert frames.fill(chat)
    assert len(made) == 2
    assert frames.fill(replace(CHATS["one"], tools=())) is None
    wrong = Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c")))
    assert frames.fill(wrong) is None  # the renderer says why
