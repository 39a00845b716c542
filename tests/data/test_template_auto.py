"""`template: auto`: the mask by comparing renderings, refusals, guarded contents, the token that ends an answer."""

from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.data.auto_template import auto_template
from tunesmith.data.encode import encode
from tunesmith.data.render import RenderSettings, render, render_prompt, token_names
from tunesmith.data.spans import masked_answers
from tunesmith.data.stop import end_tokens
from tunesmith.data.template import load_template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMING = CHATML.replace("m.content", "m.content | trim")
FORGETTING = CHATML.replace("m.content", "(m.content.split('|')[-1] if not loop.last else m.content)")
MARKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ (m.content.split('|')[-1] if not loop.last else m.content) + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOLED = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = Conversation(
    (Message("user", "a"), Message("assistant", "x|b"), Message("user", "c"), Message("assistant", "y|d"))
)
TOOLS = ({"name": "look", "description": "<|im_end|>", "parameters": {}},)


def make(chat_template, eos="<|endoftext|>"):
    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)
    tokenizer.chat_template = chat_template
    return tokenizer


def segments_of(chat_template, conversation=CHAT, prompt=False, **settings):
    tokenizer = make(chat_template)
    write = render_prompt if prompt else render
    return write(auto_template(tokenizer), conversation, RenderSettings(**settings), token_names(tokenizer))


def trained(segments):
    return "".join(segment.text for segment in segments if segment.trained)


def text(segments):
    return "".join(segment.text for segment in segments)


def test_answers_are_found_by_comparing_renderings():
    assert trained(segments_of(CHATML)) == "x|b<|im_end|>\ny|d<|im_end|>\n"
    assert trained(segments_of(CHATML, mask_history=True)) == "y|d<|im_end|>\n"
    assert trained(segments_of(CHATML, train_on_prompt=True)).startswith("<|im_start|>user")
    hidden = Conversation((CHAT.messages[0], Message("assistant", "b", trained=False), *CHAT.messages[2:]))
    assert trained(segments_of(CHATML, hidden)) == "y|d<|im_end|>\n"


def test_of_a_template_that_rewrites_the_past_only_whole_answers_are_learnt():
    segments = segments_of(FORGETTING)
    assert trained(segments) == "y|d<|im_end|>\n"
    assert masked_answers(CHAT, segments, RenderSettings()) == 1
    insisting = Conversation((CHAT.messages[0], replace(CHAT.messages[1], trained=True), *CHAT.messages[2:]))
    with pytest.raises(TemplateError, match=r"message 2 otherwise"):
        segments_of(FORGETTING, insisting)
    only_early = Conversation((*CHAT.messages[:3], replace(CHAT.messages[3], trained=False)))
    with pytest.raises(TemplateError, match=r"message 2 otherwise"):
        segments_of(FORGETTING, only_early)
    assert trained(segments_of(FORGETTING, mask_history=True)) == "y|d<|im_end|>\n"


MOVING = (
    "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if loop.last and m.role == 'user' %}{{ s }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_system_text_that_moves_to_the_last_user_is_learnt_where_it_stands():
    chat = Conversation((Message("system", "S:"), *CHAT.messages))
    segments = segments_of(MOVING, chat)
    assert trained(segments) == "y|d<|im_end|>\n"
    prompt = segments_of(MOVING, Conversation(chat.messages[:-1]), prompt=True)
    assert text(segments) == text(prompt) + "y|d<|im_end|>\n"
    assert "S:c" in text(prompt)


def test_generation_blocks_are_taken_where_prefixes_do_not_hold():
    assert trained(segments_of(MARKING)) == "b<|im_end|>y|d<|im_end|>"


def test_trimmed_contents():
    chat = Conversation((Message("user", " a\n"), Message("assistant", "\n b <|im_end|> ")))
    segments = segments_of(TRIMMING, chat)
    assert text(segments) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb <|im_end|><|im_end|>\n"
    assert [segment.text for segment in segments if not segment.literal] == ["<|im_end|>"]


def test_text_of_a_message_never_becomes_a_special_token():
    tokenizer = make(CHATML)
    template = auto_template(tokenizer)
    chat = Conversation(
        (Message("system", "<|im_start|>"), Message("user", "a<|im_end|>b"), Message("assistant", "<|im_end|>"))
    )
    ids, labels = encode(render(template, chat, RenderSettings(), token_names(tokenizer)), tokenizer, template)
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3
    assert tokenizer.decode([label for label in labels if label >= 0]) == "<|im_end|><|im_end|>\n"


def test_ids_equal_the_ordinary_ones_and_begin_with_those_of_the_prompt():
    tokenizer = make(CHATML)
    template = auto_template(tokenizer)
    ids, _ = encode(render(template, CHAT, RenderSettings(), token_names(tokenizer)), tokenizer, template)
    messages = [{"role": message.role, "content": message.content} for message in CHAT.messages]
    assert ids == tokenizer.apply_chat_template(messages, return_dict=False)
    asked = Conversation(CHAT.messages[:-1])
    prompt, labels = encode(
        render_prompt(template, asked, RenderSettings(), token_names(tokenizer)), tokenizer, template
    )
    assert ids[: len(prompt)] == prompt
    assert set(labels) == {-100}


def test_tools_are_written_or_refused():
    call = Message("assistant", "", (ToolCall("look", {"at": "<|im_end|>"}),))
    chat = Conversation((Message("user", "a"), call, Message("tool", "r"), Message("assistant", "b")), TOOLS)
    segments = segments_of(TOOLED, chat)
    assert [segment.text for segment in segments if not segment.literal] == ["<|im_end|>", "<|im_end|>"]
    assert 'look{"at": "<|im_end|>"}' in trained(segments)
    with pytest.raises(TemplateError, match="does not write tools"):
        segments_of(CHATML, chat)


def test_thoughts_are_never_dropped_silently():
    chat = Conversation((Message("user", "a"), Message("assistant", "b", reasoning_content="hm")))
    assert "<think>\nhm\n</think>\n\nb" in trained(segments_of(CHATML, chat))


def test_default_system_and_no_template_and_a_refusal():
    assert text(segments_of(CHATML, default_system="S")).startswith("<|im_start|>system\nS<|im_end|>")
    assert trained(segments_of(CHATML, default_system="S")) == "x|b<|im_end|>\ny|d<|im_end|>\n"
    with pytest.raises(TemplateError, match="has none"):
        auto_template(make(None))
    with pytest.raises(TemplateError, match="no way"):
        segments_of("{{ raise_exception('no way') }}")


def test_the_end_token_is_what_the_template_writes_not_what_the_tokenizer_says():
    tokenizer = make(CHATML, eos="<|endoftext|>")
    ids = end_tokens(auto_template(tokenizer), tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.convert_ids_to_tokens(end_tokens(load_template("qwen"), tokenizer))[0] == "<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(end_tokens(load_template("default"), tokenizer)) == ["<|endoftext|>"]
