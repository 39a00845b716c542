"""The length budget, and rows cut by it: what is lost is counted, the assistant's header stays."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from tunesmith.core.types import IGNORE_INDEX, Conversation, Message, Source
from tunesmith.data.auto_template import auto_template
from tunesmith.data.budget import share_budget, share_turns
from tunesmith.data.prompts import encode_prompts
from tunesmith.data.report import DatasetReport
from tunesmith.data.settings import RenderSettings
from tunesmith.data.template import build_template
from tunesmith.data.tokenize import Encoder, is_trained, tokenize

PLAIN = build_template(
    "plain", {"user": "U{{content}}>A:", "assistant": ["{{content}}", "{{eos_token}}"], "system": "S{{content}};"}
)
EFFICIENT = build_template("efficient", {"user": "U{{content}}>A:", "assistant": "{{content}}", "efficient_eos": True})
JINJA = (
    "{% for m in messages %}<|im_start|>{{ m.role }}|{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant|{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "target", "budget", "kept"),
    [
        (3000, 2000, 1000, (600, 400)),
        (2000, 3000, 1000, (400, 600)),
        (1000, 100, 1000, (900, 100)),
        (100, 1000, 1000, (100, 900)),
        (1000, 1, 10, (9, 1)),
        (10, 10, 0, (0, 0)),
        (5, 5, 100, (5, 5)),
        (0, 0, 0, (0, 0)),
    ],
)
def test_checked_values_of_the_reference(source, target, budget, kept):
    assert share_budget(source, target, budget) == kept


def test_turns_are_served_in_order_and_dropped_when_nothing_is_left():
    turns = [(4, 4), (4, 4), (4, 4)]
    assert share_turns(turns, 10) == [(4, 4), (1, 1), (0, 0)]
    assert share_turns(turns, 10, last_first=True) == [(0, 0), (1, 1), (4, 4)]
    assert share_turns(turns, 10, reserved=2) == [(4, 4), (0, 0), (0, 0)]


def chat(*texts, system=None):
    roles = ("user", "assistant")
    messages = [Message(roles[index % 2], text) for index, text in enumerate(texts)]
    head = [Message("system", system)] if system else []
    return Conversation((*head, *messages), source=Source("x", 1))


def encoder_of(tokenizer, template=PLAIN, cutoff_len=1000, **settings):
    return Encoder(tokenizer, template, RenderSettings(**settings), cutoff_len)


def auto(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = JINJA
    return auto_template(own)


def row_of(encoder, conversation):
    (row,) = tokenize(encoder, [conversation], [encoder.segments(conversation)])
    return row


def text_of(encoder, row):
    """The row's text with trained stretches in brackets."""
    decode = encoder.tokenizer.decode
    text, inside = "", False
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if (label != IGNORE_INDEX) != inside:
            text += "]" if inside else "["
            inside = not inside
        text += decode([token])
    return text + ("]" if inside else "")


def test_rows_within_the_limit_are_whole(byte_tokenizer):
    encoder = encoder_of(byte_tokenizer)
    row = row_of(encoder, chat("hi", "ho", "a", "b"))
    assert text_of(encoder, row) == "Uhi>A:[ho</s>]Ua>A:[b</s>]"
    assert (row.lost_tokens, row.lost_trained_tokens) == (0, 0)


def test_cut_source_loses_its_end_but_keeps_the_header_and_the_end_token(byte_tokenizer):
    # Source U + 20 + >A: = 24, target ok</s> = 3, budget 14: 2 * 3 < 14, so T = 3 and S = 11: U + 7 + >A:.
    encoder = encoder_of(byte_tokenizer, cutoff_len=14)
    row = row_of(encoder, chat("0123456789abcdefghij", "ok"))
    assert text_of(encoder, row) == "U0123456>A:[ok</s>]"
    assert (len(row.input_ids), row.lost_tokens, row.lost_trained_tokens) == (14, 13, 0)


def test_cut_target_is_counted(byte_tokenizer):
    # Source 6, target 11, budget 14: 2 * 6 < 14, so T = min(11, 14 - 6) = 8.
    encoder = encoder_of(byte_tokenizer, cutoff_len=14)
    row = row_of(encoder, chat("hi", "0123456789"))
    assert text_of(encoder, row) == "Uhi>A:[01234567]"
    assert (row.lost_tokens, row.lost_trained_tokens) == (3, 3)


def test_budget_too_small_for_the_header_is_counted(byte_tokenizer):
    # Source 14, target 3, budget 2: T = 2 * 3 // 17 = 0 and S = 2, the header >A: has 3.
    encoder = encoder_of(byte_tokenizer, cutoff_len=2)
    row = row_of(encoder, chat("0123456789", "ok"))
    assert text_of(encoder, row) == "A:"
    assert row.extra == {"lost_header": True, "lost_question": True}


@pytest.mark.parametrize("kind", [PLAIN, EFFICIENT, "auto"])
def test_a_cut_that_takes_all_of_a_question_is_marked(byte_tokenizer, kind):
    start = "user|0" if kind == "auto" else "U0"
    template = auto(byte_tokenizer) if kind == "auto" else kind
    conversation = chat("0123456789", "ok", system="s" * 30)
    lost = {}
    for cutoff_len in range(40, 66) if kind == "auto" else range(33, 48):
        encoder = encoder_of(byte_tokenizer, template, cutoff_len)
        row = row_of(encoder, conversation)
        is_left = start in text_of(encoder, row)
        lost[cutoff_len] = not is_left
        assert ("lost_question" in row.extra) == (not is_left), cutoff_len
        assert "lost_header" not in row.extra
    assert set(lost.values()) == {True, False}


def test_later_turns_go_first_unless_history_is_masked(byte_tokenizer):
    conversation = chat("aa", "bb", "cc", "dd", system="s")  # 3 + 6 + 3, then 6 + 3
    first = encoder_of(byte_tokenizer, cutoff_len=12)
    assert text_of(first, row_of(first, conversation)) == "Ss;Uaa>A:[bb</s>]"
    last = encoder_of(byte_tokenizer, cutoff_len=12, mask_history=True)
    row = row_of(last, conversation)
    assert text_of(last, row) == ">A:Ucc>A:[dd</s>]"
    assert row.lost_trained_tokens == 0


@pytest.mark.parametrize("cutoff_len", range(1, 40))
@pytest.mark.parametrize("template", [PLAIN, EFFICIENT, "auto"])
@pytest.mark.parametrize("mask_history", [False, True])
def test_no_row_is_longer_than_the_limit_and_the_loss_is_booked(byte_tokenizer, cutoff_len, template, mask_history):
    template = auto(byte_tokenizer) if template == "auto" else template
    conversation = chat("aaaa", "bbbbb", "cccccc", "ddd")
    whole = row_of(encoder_of(byte_tokenizer, template, mask_history=mask_history), conversation)
    row = row_of(encoder_of(byte_tokenizer, template, cutoff_len, mask_history=mask_history), conversation)
    assert len(row.input_ids) == len(row.labels) <= cutoff_len
    assert len(row.input_ids) + row.lost_tokens == len(whole.input_ids)
    assert row.n_trained + row.lost_trained_tokens == whole.n_trained
    assert all(
        label in (IGNORE_INDEX, token, byte_tokenizer.eos_token_id)
        for token, label in zip(row.input_ids, row.labels, strict=True)
    )


def test_efficient_eos_ends_whole_answers_only(byte_tokenizer):
    conversation = chat("aa", "bb", "cc", "dddd")
    encoder = encoder_of(byte_tokenizer, EFFICIENT)
    row = row_of(encoder, conversation)
    eos = byte_tokenizer.eos_token_id
    assert text_of(encoder, row) == "Uaa>A:[bbU]cc>A:[dddd</s>]"
    assert row.labels[8] == eos
    # 8 for the first turn and 1 for eos leave 9 of 18: T = 9 * 8 // 14 = 5, S = 4; a cut answer teaches no end.
    cut = row_of(replace(encoder, cutoff_len=18), chat("aa", "bb", "cc", "dddddddd"))
    assert text_of(encoder, cut) == "Uaa>A:[bbU]>A:[ddddd]"
    # Only the first turn fits: it is whole, so it ends in eos.
    short = row_of(replace(encoder, cutoff_len=9), conversation)
    assert text_of(encoder, short) == "Uaa>A:[bb</s>]"


def test_auto_template_keeps_its_header_too(byte_tokenizer):
    encoder = encoder_of(byte_tokenizer, auto(byte_tokenizer), 24)
    # <s>user| 0..j <e> <s>assistant| is 6 + 20 + 1 + 11 = 38; ok<e> 3: S = 21 = 6 + 3 + 12.
    row = row_of(encoder, chat("0123456789abcdefghij", "ok"))
    assert text_of(encoder, row) == "<|im_start|>user|012<|im_end|><|im_start|>assistant|[ok<|im_end|>]"


def test_answers_without_loss_leave_no_trained_row(byte_tokenizer):
    encoder = encoder_of(byte_tokenizer)
    conversation = chat("a", "b")
    silent = replace(
        conversation, messages=(conversation.messages[0], replace(conversation.messages[1], trained=False))
    )
    assert not is_trained(row_of(encoder, silent))
    assert is_trained(row_of(encoder, chat("a", "")))


def test_prompts_for_prediction_are_cut_alone_and_labels_stay_whole(byte_tokenizer):
    encoder = encoder_of(byte_tokenizer, cutoff_len=12)
    ends = frozenset({byte_tokenizer.eos_token_id})
    long_answer = "0123456789" * 5
    (row,) = encode_prompts(encoder, [chat("hello", long_answer)], ends, DatasetReport("x"))
    assert (row.prompt_text, row.label_text, row.lost_tokens) == ("Uhello>A:", long_answer, 0)
    (row,) = encode_prompts(encoder, [chat("0123456789abc", "x")], ends, DatasetReport("x"))
    assert (row.prompt_text, row.label_text, row.lost_tokens) == ("U01234567>A:", "x", 5)
    (row,) = encode_prompts(
        encoder_of(byte_tokenizer, auto(byte_tokenizer)), [chat("a", "b")], ends, DatasetReport("x")
    )
    assert (row.prompt_text, row.label_text) == ("<|im_start|>user|a<|im_end|><|im_start|>assistant|", "b")
