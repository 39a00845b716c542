"""What a text says, as a set that can be compared: pairs of Chinese characters, stems of words, numbers."""

from __future__ import annotations

import re

_HAN_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")
_WORD = re.compile(r"[a-z\u00c0-\u024f\u0400-\u04ff]{3,}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ENDINGS = ("ingly", "edly", "ings", "ing", "ied", "ies", "ed", "es", "ly", "s", "e")
_COMMON_WORDS = """
the and that this with from for was were are has have had not but you she her his him they them their its who what when
where why how which will would could should can may might must did does been being than then there here into about also
because some such more most very just only one any all out our your while during after before between these those text
passage story author
"""
_COMMON_PAIRS = """
这个 那个 一个 他们 我们 自己 没有 什么 因为 所以 如果 但是 可以 就是 不是 还是 已经 这样 那样 时候 以及 并且
通过 对于 体现 表现 反映 说明 表示 进行 具有 从而 不仅 而且 其中 由于 认为 可能 文中 作者
"""
_COMMON = frozenset(_COMMON_WORDS.split() + _COMMON_PAIRS.split())
_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_CHINESE_NUMBER = re.compile(r"(?:[零〇一二三四五六七八九十百千万亿]|两(?=[百千万亿])){1,12}")
_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
"""
_ONES, _TENS = _SMALL.split()[:20], _SMALL.split()[20:]


def content(text: str) -> set[str]:
    """The pairs of characters and stems of words that carry meaning."""
    lowered = text.lower()
    found = {stem(word) for word in _WORD.findall(lowered) if word not in _COMMON}
    for run in _HAN_RUN.findall(lowered):
        pairs = {run[place : place + 2] for place in range(len(run) - 1)}
        found |= pairs - _COMMON
        if len(run) == 1:
            found.add(run)
    return found


def stem(word: str) -> str:
    """A word without its ending, roughly: what is left need be no word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def numbers(text: str) -> set[str]:
    """The numbers of two digits and more that a text gives in digits, without commas."""
    found = {number.replace(",", "").rstrip(".") for number in _NUMBER.findall(text)}
    return {number for number in found if len(number) > 1}


def says_number(text: str, number: str) -> bool:
    """Whether a text holds a number, in digits or in words."""
    plain = text.replace(",", "")
    if re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", plain):
        return True
    if not number.isdecimal():
        return False
    value = int(number)
    if any(_chinese_value(run) == value for run in _CHINESE_NUMBER.findall(text)):
        return True
    return bool(re.search(rf"\b{_english(value)}\b", text.lower())) if value < 1000 else False


def _chinese_value(run: str) -> int:
    total, part, digit = 0, 0, 0
    for sign in run:
        if sign in _DIGITS:
            digit = digit * 10 + _DIGITS[sign] if digit and not part else _DIGITS[sign]
        elif sign in _UNITS:
            part += (digit or 1) * _UNITS[sign]
            digit = 0
        else:
            total = (total + part + digit or 1) * (10_000 if sign == "万" else 100_000_000)
            part, digit = 0, 0
    return total + part + digit


def _english(value: int) -> str:
    """A number below 1000 in words, as a regular expression."""
    if value >= 100:
        hundreds = "hundred" if value < 200 else f"{_ONES[value // 100]} hundred"
        return f"{hundreds}(?: and)? {_english(value % 100)}" if value % 100 else hundreds
    if value < 20:
        return _ONES[value]
    tens, ones = _TENS[value // 10 - 2], value % 10
    return f"{tens}[- ]{_ONES[ones]}" if ones else tens
