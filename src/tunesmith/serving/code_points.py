"""Sets of characters as grammars over the bytes that a JSON string writes for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tunesmith.serving.grammar import Node, OneOf, Seq, Text, alt

Range = tuple[int, int]
"""First and last code point."""
LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_LENGTHS = ((0x0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, LAST))
"""Code points that UTF-8 writes in one, two, three, four bytes."""
_SHORT = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_ESCAPED = [*range(0x20), 0x22, 0x5C]


def sets(ranges: Iterable[Range]) -> list[Range]:
    """In order, joined where they touch, without surrogates."""
    joined: list[Range] = []
    for first, last in sorted(_without(ranges, _SURROGATES)):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def complement(ranges: Iterable[Range]) -> list[Range]:
    """All characters but these."""
    rest: list[Range] = []
    begin = 0
    for first, last in sets(ranges):
        if begin < first:
            rest.append((begin, first - 1))
        begin = last + 1
    return sets([*rest, (begin, LAST)] if begin <= LAST else rest)


def _without(ranges: Iterable[Range], hole: Range) -> Iterator[Range]:
    for first, last in ranges:
        if first < hole[0]:
            yield first, min(last, hole[0] - 1)
        if last > hole[1]:
            yield max(first, hole[1] + 1), last


def character(ranges: Iterable[Range]) -> Node:
    """One character out of some, as JSON's strings write it: as it is, or with its one usual escape."""
    found = sets(ranges)
    written: list[Node | bytes] = [
        _escape(code) for code in _ESCAPED if any(first <= code <= last for first, last in found)
    ]
    plain = found
    for code in _ESCAPED:
        plain = list(_without(plain, (code, code)))
    written += [node for first, last in sets(plain) for node in _utf8(first, last)]
    return alt(*written)


def _escape(code: int) -> bytes:
    return _SHORT.get(code) or b"\\u%04x" % code


def _utf8(first: int, last: int) -> Iterator[Node]:
    """The byte sequences of a range, parted so that in each every byte runs through a range of its own."""
    for low, high in _LENGTHS:
        begin, end = max(first, low), min(last, high)
        if begin <= end:
            yield from (_bytes(one) for one in _parted(chr(begin).encode(), chr(end).encode()))


def _parted(first: bytes, last: bytes) -> Iterator[list[Range]]:
    """Ranges of bytes for the sequences between two of the same length."""
    if len(first) == 1:
        yield [(first[0], last[0])]
        return
    if first[0] == last[0]:
        yield from ([(first[0], first[0]), *rest] for rest in _parted(first[1:], last[1:]))
        return
    lowest, highest = b"\x80" * (len(first) - 1), b"\xbf" * (len(first) - 1)
    begin, end = first[0], last[0]
    if first[1:] != lowest:
        yield from ([(begin, begin), *rest] for rest in _parted(first[1:], highest))
        begin += 1
    if last[1:] != highest:
        yield from ([(end, end), *rest] for rest in _parted(lowest, last[1:]))
        end -= 1
    if begin <= end:
        yield [(begin, end), *[(0x80, 0xBF)] * len(lowest)]


def _bytes(ranges: list[Range]) -> Node:
    parts = tuple(
        Text(bytes([first])) if first == last else OneOf(frozenset(range(first, last + 1))) for first, last in ranges
    )
    return parts[0] if len(parts) == 1 else Seq(parts)
