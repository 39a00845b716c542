"""Thoughts inside answers: found, cut out, split from the text. The marks are a template's `thought_words`."""

from __future__ import annotations

import re


def has_thought(text: str, words: tuple[str, str]) -> bool:
    """Whether either mark, without its blanks, is in the text."""
    return any(word.strip() in text for word in words)


def cut_thought(text: str, words: tuple[str, str]) -> str:
    """The text without its thoughts; only what is written with the exact marks, blanks included, counts as one."""
    pattern = f"{re.escape(words[0])}.*?{re.escape(words[1])}"
    return re.sub(pattern, "", text, flags=re.DOTALL).lstrip("\n")


def join_thought(reasoning: str | None, text: str, words: tuple[str, str]) -> str:
    """The text with its thought written before it."""
    return text if reasoning is None else f"{words[0]}{reasoning}{words[1]}{text}"


def split_thought(text: str, words: tuple[str, str]) -> tuple[str | None, str]:
    """Parts generated text into thought and answer.

    The marks are looked for without their outer blanks, since models are free with them; an opening mark that the
    prompt already wrote may be absent, and a thought that was cut off by the token limit has no closing mark.

    Returns:
        (thought or None, answer).
    """
    opening, closing = words[0].strip(), words[1].strip()
    start = text.find(opening)
    end = text.find(closing, max(start, 0))
    if end < 0:
        if start < 0:
            return None, text
        return text[start + len(opening) :].strip("\n"), ""
    begin = start + len(opening) if 0 <= start < end else 0
    return text[begin:end].strip("\n"), text[end + len(closing) :].lstrip("\n")


def part_thought(reasoning: str | None, content: str, words: tuple[str, str]) -> tuple[str, str]:
    """Thought and answer of a message as the official templates read them; an empty thought is none.

    A thought inside the content ends at the last closing mark; blank lines around it are not part of it.
    """
    if reasoning is not None:
        return reasoning.strip("\n"), content
    opening, closing = words[0].strip(), words[1].strip()
    if closing not in content:
        return "", content
    thought = content.partition(closing)[0].rpartition(opening)[2] if opening else content.partition(closing)[0]
    return thought.strip("\n"), content.rpartition(closing)[2].lstrip("\n")
