"""Special tokens that the user added for rows are tokens in rows; all others stay text there."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import make_tiny_tokenizer

from tunesmith.core.types import Conversation, Message
from tunesmith.data.auto_template import auto_template
from tunesmith.data.encode import encode
from tunesmith.data.guard import CONTENT_TOKENS
from tunesmith.data.render import RenderSettings, render
from tunesmith.data.settings import token_names
from tunesmith.data.template import load_template


def _ids(text: str, tokenizer: Any, name: str) -> list[int]:
    template = auto_template(tokenizer) if name == "auto" else load_template(name)
    conversation = Conversation((Message("user", text), Message("assistant", "ok")))
    segments = render(template, conversation, RenderSettings(), token_names(tokenizer, template))
    return encode(segments, tokenizer, template)[0]


@pytest.mark.parametrize("name", ["chatml", "auto"])
@pytest.mark.parametrize("text", ["a <|mark|> b", "a <|mark|> b <|im_end|> c"])
def test_added_tokens_are_read_in_rows_beside_guarded_ones(name: str, text: str) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<|mark|>"], special_tokens=True)
    mark, end = tokenizer.convert_tokens_to_ids(["<|mark|>", "<|im_end|>"])
    as_text = _ids(text, tokenizer, name)
    assert mark not in as_text
    tokenizer.init_kwargs[CONTENT_TOKENS] = ["<|mark|>"]
    fresh = make_tiny_tokenizer()  # the guard is kept by tokenizer object
    fresh.add_tokens(["<|mark|>"], special_tokens=True)
    fresh.init_kwargs[CONTENT_TOKENS] = ["<|mark|>"]
    ids = _ids(text, fresh, name)
    assert ids.count(mark) == 1
    assert ids.count(end) == as_text.count(end)
    assert fresh.decode(ids) == tokenizer.decode(as_text)


def test_the_note_is_saved_with_the_tokenizer(tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = make_tiny_tokenizer()
    tokenizer.init_kwargs[CONTENT_TOKENS] = ["<|mark|>"]
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).init_kwargs[CONTENT_TOKENS] == ["<|mark|>"]
