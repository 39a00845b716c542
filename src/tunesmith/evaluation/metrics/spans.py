"""Named entities and other spans out of generated text: how they are read, then precision, recall and F1 over all."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tunesmith.evaluation.metrics.base import Metric, Options, Sample, Scores

Span = tuple[str, str]
"""Type (empty where there are none) and text."""
_LINE = re.compile(r"^\s*[-*]?\s*(?P<type>[^:：\n]{1,40})[:：](?P<texts>.*)$", re.MULTILINE)
_PARTS = re.compile(r"[,;，；、]")
_NOTHING = {"", "none", "n/a", "无", "[]"}


class SpanReader:
    """Reads spans out of a text.

    json: `[{"text": ..., "type": ...}, ...]`, `{"PER": ["Ada", ...], ...}` or `["Ada", ...]`, anywhere in the text.
    lines: `PER: Ada, Alan`, one type a line. pattern: every match of `span_pattern`.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pattern = re.compile(options.span_pattern, re.MULTILINE) if options.span_pattern else None

    def read(self, text: str) -> Counter[Span]:
        """The spans with their counts; none where nothing can be read."""
        readers = {"json": self._json, "lines": self._lines, "pattern": self._matches}
        found = readers[self._options.span_format](text)
        return Counter((self._fold(kind), self._fold(span)) for kind, span in found if self._fold(span))

    def _fold(self, text: str) -> str:
        joined = " ".join(text.split())
        return joined.casefold() if self._options.ignore_case else joined

    def _matches(self, text: str) -> Iterator[Span]:
        for match in self._pattern.finditer(text) if self._pattern else ():
            groups = match.groupdict()
            yield groups.get("type") or "", groups["text"] or ""

    def _lines(self, text: str) -> Iterator[Span]:
        for match in _LINE.finditer(text):
            for part in _PARTS.split(match["texts"]):
                if part.strip().casefold() not in _NOTHING:
                    yield match["type"], part

    def _json(self, text: str) -> Iterator[Span]:
        value = find_json(text)
        if isinstance(value, dict):
            if self._options.span_keys[0] in value:
                value = [value]
            else:
                for kind, spans in value.items():
                    for span in spans if isinstance(spans, list) else [spans]:
                        if isinstance(span, str | int | float):
                            yield str(kind), str(span)
                return
        for entry in value if isinstance(value, list) else []:
            yield from self._entry(entry)

    def _entry(self, entry: Any) -> Iterator[Span]:
        text_key, type_key = self._options.span_keys
        if isinstance(entry, str):
            yield "", entry
        elif isinstance(entry, dict) and isinstance(entry.get(text_key), str):
            yield str(entry.get(type_key, "")), entry[text_key]
        elif isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
            yield entry[1], entry[0]


def find_json(text: str) -> Any:
    """The first JSON list or object in a text; None where there is none."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[\[{]", text):
        try:
            return decoder.raw_decode(text, match.start())[0]
        except (json.JSONDecodeError, RecursionError):
            continue
    return None


class SpanScores(Metric):
    """Precision, recall and F1 of exact spans (type and text), counted over all samples.

    Args:
        names: which of span_precision, span_recall, span_f1 are reported.
        options: how spans are read.
    """

    def __init__(self, names: tuple[str, ...], options: Options) -> None:
        self._names = names
        self._reader = SpanReader(options)
        self._hits = self._said = self._right = 0

    def add(self, sample: Sample) -> Scores:
        """Adds the counts; a sample without spans on both sides is right."""
        said, right = self._reader.read(sample.predict), self._reader.read(sample.label)
        hits = (said & right).total()
        self._hits += hits
        self._said += said.total()
        self._right += right.total()
        own = _scores(hits, said.total(), right.total()) if said or right else dict.fromkeys(_ALL, 1.0)
        return {"spans": {"hits": hits, "said": said.total(), "right": right.total()}} | {
            name: round(own[name], 4) for name in self._names
        }

    def result(self) -> dict[str, float]:
        """0 to 1."""
        scores = _scores(self._hits, self._said, self._right)
        return {name: scores[name] for name in self._names}


_ALL = ("span_precision", "span_recall", "span_f1")


def _scores(hits: int, said: int, right: int) -> dict[str, float]:
    values = (
        hits / said if said else 0.0,
        hits / right if right else 0.0,
        2 * hits / (said + right) if said + right else 0.0,
    )
    return dict(zip(_ALL, values, strict=True))
