"""The end token read off chat templates of several shapes."""

import copy

import pytest

from tunesmith.models import end_token

SPACED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}"
REFUSES = "{{ raise_exception('no') }}"


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return copy.deepcopy(tiny_tokenizer)


def test_token_after_the_answer(tokenizer):
    assert end_token.answer_end_ids(tokenizer) == (2,)
    tokenizer.chat_template = SPACED
    assert end_token.answer_end_ids(tokenizer) == (2,)


@pytest.mark.parametrize("template", [NO_END, REFUSES, None])
def test_nothing_known_changes_nothing(tokenizer, template):
    tokenizer.chat_template = template
    tokenizer.eos_token = "<|im_start|>"
    assert end_token.answer_end_ids(tokenizer) == ()
    assert end_token.mend_end_token(tokenizer) == ((1,), None)
    assert tokenizer.eos_token == "<|im_start|>"


def test_right_eos_stays(tokenizer):
    assert end_token.mend_end_token(tokenizer) == ((2,), None)


def test_turn_opener_is_no_end_token_any_more(tokenizer):
    tokenizer.eos_token = "<|im_start|>"
    ends, said = end_token.mend_end_token(tokenizer)
    assert ends == (2,)
    assert said is not None
    assert "end token set to <|im_end|>" in said
    assert tokenizer.eos_token_id == 2


def test_harmless_old_eos_stays_an_end_token(tokenizer):
    tokenizer.eos_token = "<|endoftext|>"
    assert end_token.mend_end_token(tokenizer)[0] == (2, 0)


def test_pad_is_moved_off_the_end_token(tokenizer):
    tokenizer.pad_token = "<|im_end|>"
    assert end_token.mend_pad_token(tokenizer, (2,)) == "pad token set to <|endoftext|> (was <|im_end|>)"
    assert tokenizer.pad_token_id == 0
    assert end_token.mend_pad_token(tokenizer, (2,)) is None


def test_pad_is_the_eos_where_nothing_else_is_there(tokenizer):
    tokenizer.pad_token = None
    end_token.mend_pad_token(tokenizer, (0, 1, 2))
    assert tokenizer.pad_token == "<|im_end|>"
