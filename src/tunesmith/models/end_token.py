"""Which tokens really end an answer, read off the tokenizer's own chat template; not our template files."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

_MARK = "TunesmithAnswerMark"
_QUESTION = {"role": "user", "content": "Hello"}
_ANSWER = {"role": "assistant", "content": _MARK}


def _tail(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    """What the chat template writes after the answer; empty when it has none or refuses the conversation."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception:  # jinja raises whatever the template's author chose
        return ""
    return str(text).rpartition(_MARK)[2] if _MARK in str(text) else ""


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of every token that the tokenizer treats as a mark, not as text."""
    named = {int(i) for i in tokenizer.all_special_ids}
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return named | {int(i) for i, token in added.items() if getattr(token, "special", False)}


def answer_end_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Special tokens that the chat template writes right after an assistant's answer, in order.

    They are taken from a conversation that ends with the answer, so that the token that opens the next turn is not
    among them. Empty when there is no chat template, or when it writes no mark after an answer.
    """
    tail = _tail(tokenizer, [_QUESTION, _ANSWER], add_generation_prompt=False)
    marks = special_ids(tokenizer)
    found: list[int] = []
    for token_id in tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []:
        if token_id in marks:
            found.append(int(token_id))
        elif tokenizer.decode([token_id]).strip():
            break
    return tuple(dict.fromkeys(found))


def _template_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every id that a rendered conversation holds."""
    text = tokenizer.apply_chat_template([_QUESTION, _ANSWER], tokenize=False, add_generation_prompt=True)
    return set(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def mend_end_token(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], str | None]:
    """Makes the tokenizer's eos the token that its chat template ends answers with.

    Returns:
        All ids that end an answer, the eos first (an old eos that opens no turn stays an end token), and one sentence
        about what was changed, None when the eos was right or nothing better is known.
    """
    ends = answer_end_ids(tokenizer)
    old_id, old_name = tokenizer.eos_token_id, tokenizer.eos_token
    if not ends:
        return ((int(old_id),) if old_id is not None else ()), None
    if old_id in ends:
        return (int(old_id), *(i for i in ends if i != old_id)), None
    new_name = tokenizer.convert_ids_to_tokens(ends[0])
    tokenizer.eos_token = new_name
    said = f"end token set to {new_name} (id {ends[0]}), with which the chat template ends answers; it was {old_name}"
    keeps_old = old_id is not None and old_id not in _template_ids(tokenizer)
    return ((*ends, int(old_id)) if keeps_old else ends), said


def mend_pad_token(tokenizer: PreTrainedTokenizerBase, end_ids: tuple[int, ...]) -> str | None:
    """Gives the tokenizer a pad token that is no end token where it has one to offer, else the eos.

    A pad that equals the end token invites code that masks every pad to mask the end of the answer too, and the model
    never learns to stop.

    Returns:
        One sentence about what was changed, None when the pad was right.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in end_ids:
        return None
    marks = {i: tokenizer.convert_ids_to_tokens(i) for i in sorted(special_ids(tokenizer)) if i not in end_ids}
    named = [name for name in marks.values() if name.strip("<|>[]_").lower() in {"pad", "padding", "endoftext", "unk"}]
    named.sort(key=lambda name: "pad" not in name.lower())
    old = tokenizer.pad_token
    new = named[0] if named else tokenizer.eos_token
    if new is None or new == old:
        return None
    tokenizer.pad_token = new
    return f"pad token set to {new} (was {old})"
