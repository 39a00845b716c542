"""What a metric is: it takes samples one by one, says each one's scores, and keeps no more than its totals."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Scores = dict[str, Any]
"""Scores of one sample as they are written beside it: numbers, truths, and labels as text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer and what it should have been.

    Attributes:
        predict: the generated text.
        label: the reference.
        prompt: what was asked.
        others: further references that are as good.
    """

    predict: str
    label: str
    prompt: str = ""
    others: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """All references."""
        return (self.label, *self.others)


class Metric(ABC):
    """One measure, or a few that are computed together. An instance measures one set of samples.

    Attributes:
        is_running: a result in between costs next to nothing.
    """

    is_running = True

    @abstractmethod
    def add(self, sample: Sample) -> Scores:
        """Takes a sample into the totals; returns its own scores."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """The scores of all samples so far; without samples they are 0."""


@dataclass(slots=True)
class Mean:
    """A running mean, exact: sums of floats are kept as fsum keeps them."""

    total: float = 0.0
    error: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Takes a number (Neumaier's summation, 1974)."""
        new = self.total + value
        larger, smaller = (self.total, value) if abs(self.total) >= abs(value) else (value, self.total)
        self.error += (larger - new) + smaller
        self.total = new
        self.count += 1

    @property
    def value(self) -> float:
        """The mean; 0 of nothing."""
        return (self.total + self.error) / self.count if self.count else 0.0


class MeanMetric(Metric):
    """A metric whose result is the mean of its samples' scores.

    Attributes:
        names: of its scores.
    """

    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._means: dict[str, Mean] = {name: Mean() for name in self.names}

    @abstractmethod
    def score(self, sample: Sample) -> Mapping[str, float | bool]:
        """The scores of one sample; the same names for every sample."""

    def add(self, sample: Sample) -> Scores:
        """Scores a sample."""
        scores = self.score(sample)
        for name, value in scores.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
            self._means.setdefault(name, Mean()).add(float(value))
        return {name: value if isinstance(value, bool) else round(float(value), 4) for name, value in scores.items()}

    def result(self) -> dict[str, float]:
        """The means."""
        return {name: mean.value for name, mean in self._means.items()}


@dataclass(frozen=True, slots=True)
class Options:
    """`metric_options`, checked by config/metrics.py.

    Attributes:
        language: how texts are cut into words: auto, zh, words, characters.
        labels: the labels there are; empty: every label that a reference has.
        label_pattern: regular expression that finds the label in a text.
        label_take: which finding counts where there are several.
        ignore_case: labels that differ in case alone are the same.
        average: of labels' scores: macro, micro, weighted, binary.
        positive_label: the label of binary.
        span_format: how spans are written: json, lines, pattern.
        span_pattern: regular expression with groups `text` and, if there are types, `type`.
        span_keys: keys of the text and of the type in JSON.
        regex: what regex_match looks for.
        json_keys: keys that json_valid wants in the object.
    """

    language: str = "auto"
    labels: tuple[str, ...] = ()
    label_pattern: str = ""
    label_take: str = "last"
    ignore_case: bool = True
    average: str = "macro"
    positive_label: str = ""
    span_format: str = "json"
    span_pattern: str = ""
    span_keys: tuple[str, str] = ("text", "type")
    regex: str = ""
    json_keys: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Options:
        """From the mapping in a configuration."""
        values: dict[str, Any] = {
            name: tuple(map(str, v)) if isinstance(v, list) else v for name, v in (given or {}).items()
        }
        if "span_pattern" in values:
            values.setdefault("span_format", "pattern")
        return cls(**values)
