"""The ids that end an answer: what the template really writes there, then its stop words and the tokenizer's eos."""

from __future__ import annotations

from typing import Any

from tunesmith.core.types import Conversation, Message
from tunesmith.data.auto_template import AutoTemplate, render_auto
from tunesmith.data.settings import RenderSettings, token_names
from tunesmith.data.template import Template

_PROBE = "\uf8e0"


def end_tokens(template: Template | AutoTemplate, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer, each once; the one that a rendered answer ends with comes first.

    A stop word that is not one token of this tokenizer is left out: it cannot be compared with single ids.
    """
    if isinstance(template, AutoTemplate):
        names = [_auto_end(template, tokenizer), tokenizer.eos_token]
    else:
        names = [*_template_ends(template, tokenizer), tokenizer.eos_token]
    vocabulary = tokenizer.get_added_vocab()
    ids = [vocabulary[name] for name in names if name in vocabulary]
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return tuple(dict.fromkeys(ids))


def _template_ends(template: Template, tokenizer: Any) -> list[str]:
    eos = token_names(tokenizer, template).eos
    return [*([eos] if eos else []), *template.stop_words]


def _auto_end(template: AutoTemplate, tokenizer: Any) -> str | None:
    """The first control token after an answer in the chat template's own text."""
    chat = Conversation((Message("user", "."), Message("assistant", _PROBE)))
    text = "".join(part.text for part in render_auto(template, chat, RenderSettings()))
    tail = text.rpartition(_PROBE)[2]
    return next((piece for piece, is_control in template.guard.split(tail) if is_control), None)
