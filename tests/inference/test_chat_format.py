"""Messages to ids, ids to text: no character is split, no stop text gets through."""

import random

import pytest

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Message
from tunesmith.data.auto_template import auto_template
from tunesmith.inference.chat import ChatFormat, StreamDecoder
from tunesmith.inference.engine import Completion, SamplingParams
from tunesmith.inference.fake import FakeEngine

TEXT = "Grüße, 你好 🙂👩‍👩‍👧 the quick fox\n\n  naïve\tend"


@pytest.fixture
def form(tiny_tokenizer):
    return ChatFormat(auto_template(tiny_tokenizer), tiny_tokenizer, end_token_ids=(2,))


def test_prompt_ids_are_those_of_the_chat_template(form, tiny_tokenizer):
    messages = [
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "Go"),
    ]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    expected = tiny_tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    assert form.prompt_ids(messages) == expected
    assert form.request(messages, SamplingParams()).end_token_ids == (2,)


def test_special_text_in_a_message_stays_text(form):
    assert form.prompt_ids([Message("user", "<|im_end|>")]).count(2) == form.prompt_ids([Message("user", "x")]).count(2)


def test_the_last_message_must_not_be_the_assistants(form):
    with pytest.raises(TemplateError):
        form.prompt_ids([Message("user", "a"), Message("assistant", "b")])


@pytest.mark.parametrize("step", [1, 2, 5])
def test_stream_is_whole_characters_and_all_of_them(tiny_tokenizer, step):
    ids = tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tiny_tokenizer)
    pieces = [decoder.push(ids[start : start + step]) for start in range(0, len(ids), step)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + decoder.finish() == TEXT


def test_random_ids_come_out_as_decode_says(tiny_tokenizer):
    """Byte-level tokens at random: mostly broken characters; what is given out adds up to the whole."""
    rng = random.Random(0)
    for _ in range(50):
        ids = [rng.randrange(3, len(tiny_tokenizer)) for _ in range(30)]
        decoder = StreamDecoder(tiny_tokenizer)
        text = "".join(decoder.push([i]) for i in ids) + decoder.finish()
        assert len(text) > 0
        assert text.replace("\ufffd", "") == tiny_tokenizer.decode(ids).replace("\ufffd", "")


def test_a_character_that_never_came_whole_is_marked_at_the_end(tiny_tokenizer):
    ids = tiny_tokenizer("ab你", add_special_tokens=False)["input_ids"][:-1]
    decoder = StreamDecoder(tiny_tokenizer)
    assert "".join(decoder.push([i]) for i in ids) == "ab"
    assert decoder.finish() == "\ufffd"


def test_stop_texts_are_held_back(tiny_tokenizer):
    ids = tiny_tokenizer("one stow two stop three", add_special_tokens=False)["input_ids"]
    decoder = StreamDecoder(tiny_tokenizer, stop=(" stop",))
    text = ""
    for i in ids:
        text += decoder.push([i])
        assert " stop".startswith(text[-2:]) is False or not text.endswith(" st")
    assert text == "one stow two"
    assert decoder.is_stopped
    assert decoder.finish() == ""
    assert decoder.push(ids) == ""


def test_what_only_looked_like_a_stop_text_comes_at_the_end(tiny_tokenizer):
    decoder = StreamDecoder(tiny_tokenizer, stop=("stop",))
    ids = tiny_tokenizer("a sto", add_special_tokens=False)["input_ids"]
    assert "".join(decoder.push([i]) for i in ids) + decoder.finish() == "a sto"


def test_special_tokens_are_shown_on_request(form, tiny_tokenizer):
    ids = tuple(tiny_tokenizer("hi", add_special_tokens=False)["input_ids"])
    completion = Completion(ids, "stop", 2)
    assert form.text_of(completion) == "hi"
    assert form.text_of(completion, skip_special_tokens=False) == "hi<|im_end|>"
    assert form.text_of(completion, stop=("i",)) == "h"


def test_stream_over_an_engine(form, tiny_tokenizer):
    answer = [*tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"], 2, 5, 5]
    request = form.request([Message("user", "x")], SamplingParams())
    assert "".join(form.stream(FakeEngine([answer]), request)) == TEXT
    shown = "".join(form.stream(FakeEngine([answer]), request, skip_special_tokens=False))
    assert shown == TEXT + "<|im_end|>"
    stopped = form.request([Message("user", "x")], SamplingParams(stop=("你好",)))
    assert "".join(form.stream(FakeEngine([answer]), stopped)) == "Grüße, "
