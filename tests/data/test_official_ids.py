"""Twenty conversations x seven families: training, chat, API, exported folder and official chat template, id by id.

The full comparison needs the tokenizers (`TUNESMITH_TEST_TOKENIZERS`); without them the recorded ids cannot be made
anew, and the texts that gave them are compared by their hashes.
"""

import hashlib
import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message
from tunesmith.data.auto_chat import as_dicts, auto_template, with_text_arguments
from tunesmith.data.encode import encode
from tunesmith.data.jinja import jinja_of
from tunesmith.data.render import RenderSettings, TokenNames, render, render_prompt, token_names
from tunesmith.data.stop import end_tokens
from tunesmith.data.template import load_template
from tunesmith.data.tools import load_tool_format
from tunesmith.inference.chat import ChatFormat
from tunesmith.models.export import conformance
from tunesmith.models.export.conformance import check_conformance, write_conformance
from tunesmith.models.export.template import set_chat_template
from tunesmith.models.export.writer import write_tokenizer
from tunesmith.models.tokenizer import read_tokenizer
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.messages import conversation_of
from tunesmith.serving.requests import ChatRequest

_spec = importlib.util.spec_from_file_location("official_chats", Path(__file__).parent / "official_chats.py")
official_chats = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(official_chats)
CHATS, NAMED, SPECIAL = official_chats.CHATS, official_chats.NAMED, official_chats.SPECIAL
request_of = official_chats.request_of

FOLDER = os.environ.get("TUNESMITH_TEST_TOKENIZERS", "")
RECORD = Path(__file__).parent / "golden" / "official_ids.json"
needs_tokenizers = pytest.mark.skipif(
    not FOLDER, reason="TUNESMITH_TEST_TOKENIZERS names no folder of real tokenizers: ids are not compared"
)
SETTINGS = RenderSettings()
REFUSED = {
    "gemma2": {"system", "two_system", "four_system", "emoji"},
    "mistral_v3": {"text_beside_call"},
}
"""Conversations that the official template refuses or leaves a part of out; those with tools: see WRITES_TOOLS."""
WRITES_TOOLS = ("qwen2_5", "qwen3", "mistral_v3")


def accepted(family):
    refused = REFUSED.get(family, set())
    return {
        name: chat
        for name, chat in CHATS.items()
        if name not in refused and (chat.tools is None or family in WRITES_TOOLS)
    }


def cases():
    return [(family, name) for family in NAMED for name in accepted(family)]


def text_of(segments):
    return "".join(part.text for part in segments)


def recorded():
    return json.loads(RECORD.read_text("utf-8"))


def test_there_are_twenty_conversations_and_seven_families():
    assert (len(CHATS), len(NAMED)) == (20, 7)
    assert len(cases()) == 7 * 20 - 4 * 4 - 4 - 1


@pytest.mark.parametrize(("family", "name"), cases())
def test_texts_are_the_recorded_ones(family, name):
    entry = recorded()[family]
    names = TokenNames(entry["bos"], entry["eos"])
    text = text_of(render(load_template(NAMED[family]), CHATS[name], SETTINGS, names))
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == entry["chats"][name][0]


@pytest.fixture(scope="module")
def tokenizers():
    from transformers import AutoTokenizer

    return {family: AutoTokenizer.from_pretrained(Path(FOLDER) / family) for family in NAMED}


def official_text(tokenizer, chat, generation, template=None):
    """What transformers renders, calls with arguments as objects, or as text where the template wants that."""
    own = auto_template(tokenizer)
    messages = as_dicts(own, chat.messages)
    tools = [{"type": "function", "function": tool} for tool in chat.tools or ()] or None
    options = {"tools": tools, "add_generation_prompt": generation, "tokenize": False, "chat_template": template}
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except TypeError:
        return tokenizer.apply_chat_template([with_text_arguments(message) for message in messages], **options)


def official_ids(tokenizer, chat, template=None):
    """Ids of the prompt of the last answer, and of prompt and answer.

    Mistral's template writes the system text into the last user message only while it is the last of all: the answer
    is taken from the whole text and put behind its real prompt.
    """
    prompt = official_text(tokenizer, asked(chat), True, template)
    whole = official_text(tokenizer, chat, False, template)
    if not whole.startswith(prompt):
        whole = prompt + whole.rpartition("[/INST]")[2]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole)]


def asked(chat):
    return Conversation(chat.messages[:-1], chat.tools)


@pytest.mark.parametrize("name", CHATS)
def test_a_request_is_read_as_the_conversation_of_the_row(name):
    """So that what follows, `ChatFormat.prompt_ids`, gives the ids of the prompt in training."""
    found = conversation_of(ChatRequest.model_validate(request_of(CHATS[name])))
    without_ids = [
        replace(message, tool_calls=tuple(replace(call, id=None) for call in message.tool_calls))
        for message in found.messages
    ]
    assert Conversation(tuple(without_ids), found.tools) == asked(CHATS[name])


@pytest.fixture(scope="module")
def dialects(tokenizers):
    """The server's own way from a request to ids."""
    return {
        family: Dialect(ChatFormat(load_template(NAMED[family]), tokenizer)) for family, tokenizer in tokenizers.items()
    }


@pytest.fixture(scope="module")
def folders(tokenizers, tmp_path_factory):
    """The tokenizer of each family, written as an export writes it and read back.

    Without special tokens as text, which need a copy of each tokenizer: a test of their own is below.
    """
    chats = {name: chat for name, chat in conformance.CONVERSATIONS.items() if name != "special tokens as text"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conformance, "CONVERSATIONS", chats)
        return {family: write_and_read(family, tokenizers[family], tmp_path_factory) for family in NAMED}


def write_and_read(family, tokenizer, tmp_path_factory):
    template, folder = load_template(NAMED[family]), tmp_path_factory.mktemp(family)
    own = tokenizer.chat_template
    set_chat_template(tokenizer, template)
    write_tokenizer(tokenizer, folder)
    write_conformance(folder, tokenizer, template, SETTINGS, end_tokens(template, tokenizer))
    tokenizer.chat_template = own
    return folder, read_tokenizer(folder)


@needs_tokenizers
@pytest.mark.parametrize("family", NAMED)
def test_an_exported_folder_holds_to_its_conformance_file(folders, family):
    folder, tokenizer = folders[family]
    template = load_template(NAMED[family])
    found = check_conformance(folder, tokenizer, template, end_tokens(template, tokenizer))
    assert [item for item in found if not item.agrees] == []
    facts = json.loads((folder / "conformance.json").read_text("utf-8"))
    cases = {case["name"]: case for case in facts["conversations"]}
    names = {"one turn", "two turns with system text"}
    assert all(cases[name]["chat_template_agrees"] for name in names)


@needs_tokenizers
@pytest.mark.parametrize(("family", "name"), [case for case in cases() if case[1] != "special"])
def test_ids_are_the_same_everywhere(tokenizers, dialects, folders, family, name):
    tokenizer, chat, template = tokenizers[family], CHATS[name], load_template(NAMED[family])
    names = token_names(tokenizer, template)
    prompt, whole = official_ids(tokenizer, chat)
    trained, labels = encode(render(template, chat, SETTINGS, names), tokenizer, template)
    assert trained == whole
    assert ChatFormat(template, tokenizer).prompt_ids(asked(chat).messages, chat.tools) == prompt
    assert dialects[family].ask(ChatRequest.model_validate(request_of(chat))).ids == prompt
    assert trained[: len(prompt)] == prompt
    assert any(label in end_tokens(template, tokenizer) for label in labels)
    assert recorded()[family]["chats"][name][1:] == [whole, len([label for label in labels if label != IGNORE_INDEX])]
    assert encode(render(auto_template(tokenizer), chat, SETTINGS, names), tokenizer, template)[0] == whole
    exported = exported_template(tokenizer, template)
    # Gemma's own refuses a system text, so an export puts ours in its place; the others write the same, and stay.
    assert (exported == tokenizer.chat_template) == (family != "gemma2")
    assert official_ids(tokenizer, chat, exported) == [prompt, whole]
    written = folders[family][1]
    assert official_ids(written, chat) == [prompt, whole]
    assert ChatFormat(template, written).prompt_ids(asked(chat).messages, chat.tools) == prompt
    ours = official_ids(tokenizer, chat, jinja_of(template))
    # Mistral's own loses the system text once an answer follows; ours keeps it.
    assert ours == [prompt, whole] or (family == "mistral_v3" and ours[0] == prompt)


def exported_template(tokenizer, template):
    """What the tokenizer of an exported folder would hold."""
    own = tokenizer.chat_template
    set_chat_template(tokenizer, template)
    written, tokenizer.chat_template = tokenizer.chat_template, own
    return written


@needs_tokenizers
@pytest.mark.parametrize("family", NAMED)
def test_special_text_of_a_user_stays_text(tokenizers, family):
    tokenizer, template = tokenizers[family], load_template(NAMED[family])
    own, names = auto_template(tokenizer), token_names(tokenizer, load_template(NAMED[family]))
    ids = encode(render(template, CHATS["special"], SETTINGS, names), tokenizer, template)[0]
    assert ids == encode(render(own, CHATS["special"], SETTINGS, names), tokenizer, own)[0]
    assert recorded()[family]["chats"]["special"][1] == ids
    harmless = Conversation((Message("user", "harmless"), Message("assistant", "fine")))
    expected = encode(render(template, harmless, SETTINGS, names), tokenizer, template)[0]
    guarded = {tokenizer.convert_tokens_to_ids(name) for name in own.guard.names}
    assert [index for index in ids if index in guarded] == [index for index in expected if index in guarded]
    assert SPECIAL.replace("▁", " ") in tokenizer.decode(ids, clean_up_tokenization_spaces=False).replace("▁", " ")


@needs_tokenizers
def test_qwen3_nothink_prompts_are_those_of_qwen3(tokenizers):
    """Its text is that of the models without a thinking mode: the same prompts, answers without a thought."""
    tokenizer, template = tokenizers["qwen3"], load_template("qwen3_nothink")
    for name, chat in CHATS.items():
        if "thought" not in name and name != "special":
            ids = ChatFormat(template, tokenizer).prompt_ids(asked(chat).messages, chat.tools)
            assert ids == official_ids(tokenizer, chat)[0], name


@needs_tokenizers
def test_what_the_official_templates_refuse(tokenizers):
    for family, names in REFUSED.items():
        for name in names:
            with pytest.raises(TemplateError):
                render(auto_template(tokenizers[family]), CHATS[name], SETTINGS, TokenNames("", ""))
    for family in set(NAMED) - set(WRITES_TOOLS):
        with pytest.raises(TemplateError):
            render(auto_template(tokenizers[family]), CHATS["call"], SETTINGS, TokenNames("", ""))


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("name", sorted(CHATS))
@pytest.mark.parametrize("family", NAMED)
def test_what_is_learnt_stands_behind_the_prompt_of_a_chat(family, name, thinking):
    """Every trained answer begins where a chat at that turn would let the model begin."""
    entry = recorded()[family]
    template, names = load_template(NAMED[family]), TokenNames(entry["bos"], entry["eos"])
    settings, chat, before = RenderSettings(enable_thinking=thinking), CHATS[name], ""
    prompts = [
        text_of(render_prompt(template, Conversation(chat.messages[:index], chat.tools), settings, names))
        for index, message in enumerate(chat.messages)
        if message.role == "assistant"
    ]
    was_trained, stretches = False, 0
    for part in render(template, chat, settings, names):
        if part.trained and not was_trained:
            assert before in prompts
            stretches += 1
        was_trained, before = part.trained, before + part.text
    assert 1 <= stretches <= len(prompts)


@pytest.mark.parametrize("family", WRITES_TOOLS)
@pytest.mark.parametrize("name", [name for name, chat in CHATS.items() if chat.tools])
def test_calls_are_read_back_out_of_the_rendered_answer(family, name):
    entry = recorded()[family]
    template, names = load_template(NAMED[family]), TokenNames(entry["bos"], entry["eos"])
    chat = CHATS[name]
    place = next(index for index, message in enumerate(chat.messages) if message.tool_calls)
    short = Conversation(chat.messages[: place + 1], chat.tools)
    written = text_of(render(template, short, SETTINGS, names)).removeprefix(
        text_of(render_prompt(template, asked(short), SETTINGS, names))
    )
    end = next(word for word in ("<|im_end|>", "</s>") if word in written)
    found = load_tool_format(template.tool_format).parse(written.partition(end)[0], chat.tools)
    message = chat.messages[place]
    assert [(call.name, call.arguments) for call in found.calls] == [
        (call.name, call.arguments) for call in message.tool_calls
    ]
    assert found.content.rpartition("</think>")[2].strip() == message.content
