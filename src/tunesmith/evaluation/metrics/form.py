"""Metrics of an answer's form and of single facts in it: JSON, regular expressions, numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.metrics.base import MeanMetric, Options, Sample

_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def parse_json(text: str) -> Any:
    """The value that a whole text is, blanks aside.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(text.strip())
    except RecursionError as error:
        raise ValueError("nested too deep") from error


class JsonValid(MeanMetric):
    """Whether the whole answer is JSON; with `json_keys` an object that has these keys."""

    names = ("json_valid",)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._keys = options.json_keys

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """True or false."""
        try:
            value = parse_json(sample.predict)
        except ValueError:
            return {"json_valid": False}
        has_keys = isinstance(value, dict) and all(key in value for key in self._keys)
        return {"json_valid": has_keys if self._keys else True}


class JsonEqual(MeanMetric):
    """Whether answer and reference are the same JSON value; the order of keys does not count."""

    names = ("json_equal",)

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """False where either is no JSON."""
        try:
            ours = parse_json(sample.predict)
            return {"json_equal": any(ours == parse_json(text) for text in sample.references)}
        except ValueError:
            return {"json_equal": False}


class RegexMatch(MeanMetric):
    """Whether `regex` is found in the answer."""

    names = ("regex_match",)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._pattern = re.compile(options.regex)

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """True or false."""
        return {"regex_match": self._pattern.search(sample.predict) is not None}


class NumberMatch(MeanMetric):
    """Whether the last number in the answer is the last number in a reference, as in arithmetic word problems."""

    names = ("number_match",)

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """False where either has no number."""
        ours = last_number(sample.predict)
        theirs = [last_number(text) for text in sample.references]
        return {
            "number_match": ours is not None
            and any(number is not None and math.isclose(ours, number, rel_tol=1e-9) for number in theirs)
        }


def last_number(text: str) -> float | None:
    """The last number in a text, thousands parted by commas or not."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None
