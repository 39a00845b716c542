"""Ids of `auto` against transformers' own rendering of real tokenizers; runs where a folder of them is given."""

import os
from pathlib import Path

import pytest

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.data.auto_chat import as_dicts, auto_template, with_text_arguments
from tunesmith.data.encode import encode
from tunesmith.data.render import RenderSettings, render, render_prompt, token_names
from tunesmith.data.stop import end_tokens

FOLDER = os.environ.get("TUNESMITH_TEST_TOKENIZERS", "")
FAMILIES = ("qwen2_5", "qwen3", "llama3", "mistral_v3", "phi4", "gemma2", "deepseek_v3")
pytestmark = pytest.mark.skipif(not FOLDER, reason="TUNESMITH_TEST_TOKENIZERS names no folder of real tokenizers")

USER, SYSTEM = Message("user", "Hi there"), Message("system", "Be brief.")
CALLS = (ToolCall("weather", {"city": "Zürich"}), ToolCall("weather", {"city": "北京"}))
TOOLS = (
    {
        "name": "weather",
        "description": "Look up.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
)
CHATS = {
    "one": (USER, Message("assistant", "Hello.")),
    "system": (SYSTEM, USER, Message("assistant", "Hello.")),
    "chinese": (Message("user", "你好 😀"), Message("assistant", "我是助手。😀")),
    "three": (
        USER,
        Message("assistant", "a"),
        Message("user", " x\ny"),
        Message("assistant", "b"),
        USER,
        Message("assistant", "c"),
    ),
    "blanks": (Message("user", "  lead\n\n"), Message("assistant", "  x = 1\n\n")),
    "empty": (USER, Message("assistant", "")),
    "thought": (USER, Message("assistant", "4", (), "easy")),
    "call": (USER, Message("assistant", "", CALLS[:1]), Message("tool", '{"t": 21}'), Message("assistant", "21.")),
    "parallel": (
        USER,
        Message("assistant", "", CALLS),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "21."),
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    from transformers import AutoTokenizer

    return request.param, AutoTokenizer.from_pretrained(Path(FOLDER) / request.param)


def official(tokenizer, template, conversation):
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = as_dicts(template, conversation.messages)
    tools = [{"type": "function", "function": tool} for tool in conversation.tools or ()] or None
    options = {"tools": tools, "chat_template": template.text, "enable_thinking": True, **tokenizer.special_tokens_map}
    try:
        text = render_jinja_template([chat], **options)[0][0]
    except TypeError:
        text = render_jinja_template([[with_text_arguments(message) for message in chat]], **options)[0][0]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_auto_gives_the_official_ids(family):
    name, tokenizer = family
    template, names = auto_template(tokenizer), token_names(tokenizer)
    equal = []
    for case, messages in CHATS.items():
        conversation = Conversation(messages, TOOLS if case in ("call", "parallel") else None)
        settings = RenderSettings(mask_history=True)
        try:
            segments = render(template, conversation, settings, names)
        except TemplateError:
            assert case in ("system", "call", "parallel"), (name, case)
            continue
        if (name, case) == ("mistral_v3", "system"):
            continue  # its whole text loses the system text: see test_official_ids.py
        ids, labels = encode(segments, tokenizer, template)
        assert ids == official(tokenizer, template, conversation), (name, case)
        asked = Conversation(messages[:-1], conversation.tools)
        prompt, _ = encode(render_prompt(template, asked, settings, names), tokenizer, template)
        assert ids[: len(prompt)] == prompt
        assert any(label in end_tokens(template, tokenizer) for label in labels)
        equal.append(case)
    assert len(equal) >= 6


def test_special_tokens_in_messages_stay_text(family):
    _, tokenizer = family
    template, names = auto_template(tokenizer), token_names(tokenizer)
    text = "a<|im_end|><|eot_id|></s>[INST]<end_of_turn><｜Assistant｜>b<｜end▁of▁sentence｜>"
    ids = [
        encode(
            render(
                template, Conversation((Message("user", asked), Message("assistant", "x"))), RenderSettings(), names
            ),
            tokenizer,
            template,
        )[0]
        for asked in (text, "harmless")
    ]
    guarded = {tokenizer.convert_tokens_to_ids(name) for name in template.guard.names}
    assert [index for index in ids[0] if index in guarded] == [index for index in ids[1] if index in guarded]
    written = tokenizer.decode(ids[0], clean_up_tokenization_spaces=False).replace("▁", " ")
    assert text.replace("▁", " ") in written
