"""Classification out of generated text: how a label is read, then accuracy, precision, recall and F1 over labels."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

from tunesmith.evaluation.metrics.base import Metric, Options, Sample, Scores

_TRIM = " \t\r\n.,;:!?\"'`*()[]{}。，；：！？“”‘’（）【】「」"


class LabelReader:
    """Reads the label out of a text.

    With `label_pattern` the label is the group `label`, else the first group, else all that was found. With `labels` it
    is the whole text if that is a label, else the label that stands in the text as a word of its own. Otherwise it is
    the whole text. Blanks and marks around it do not count.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        flags = re.IGNORECASE if options.ignore_case else 0
        self._pattern = re.compile(options.label_pattern, flags | re.MULTILINE) if options.label_pattern else None
        self._known = {self._fold(label): label for label in options.labels}

    def read(self, text: str) -> str | None:
        """The label of an answer; None where there is none."""
        if self._pattern is not None:
            found = [self._of_match(match) for match in self._pattern.finditer(text)]
            return self._known_one(self._take(found)) if found else None
        whole = self._fold(text)
        if not self._known:
            return whole or None
        if whole in self._known:
            return self._known[whole]
        found = [match[0] for match in self._anywhere.finditer(text)]
        return self._known[self._fold(self._take(found))] if found else None

    def reference(self, text: str) -> str:
        """The label of a reference, which is often the label alone."""
        label = self.read(text)
        return self._fold(text) if label is None else label

    def _of_match(self, match: re.Match[str]) -> str:
        groups = match.groupdict()
        return str(groups["label"] if "label" in groups else match[1] if match.re.groups else match[0])

    def _known_one(self, text: str) -> str | None:
        label = self._fold(text)
        return self._known.get(label) if self._known else label or None

    def _take(self, found: list[str]) -> str:
        return found[0 if self._options.label_take == "first" else -1]

    def _fold(self, text: str) -> str:
        trimmed = " ".join(text.strip(_TRIM).split())
        return trimmed.casefold() if self._options.ignore_case else trimmed

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        """Any label, the longest first; one that ends in a letter of a spaced script is not a part of a word."""

        def bounded(label: str) -> str:
            left = r"(?<!\w)" if _is_latin(label[0]) else ""
            right = r"(?!\w)" if _is_latin(label[-1]) else ""
            return left + r"\s+".join(map(re.escape, label.split())) + right

        ordered = sorted(self._known.values(), key=len, reverse=True)
        flags = re.IGNORECASE if self._options.ignore_case else 0
        return re.compile("|".join(bounded(label.strip(_TRIM)) for label in ordered), flags)


def _is_latin(character: str) -> bool:
    return character.isalnum() and ord(character) < 0x3000


class LabelCounts:
    """How often each label was said, was right, and was said rightly."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.right: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()

    def add(self, said: str | None, right: str) -> None:
        """Takes one pair; an answer without a label is wrong and counts for no label."""
        self.right[right] += 1
        if said is not None:
            self.said[said] += 1
        if said == right:
            self.hits[right] += 1

    @property
    def labels(self) -> list[str]:
        """The labels that are averaged over: those that there are, by options or by the references."""
        folded = {label.casefold(): label for label in self._options.labels}
        return sorted(folded.values()) if folded else sorted(self.right)

    def accuracy(self) -> float:
        """Share of right answers."""
        return self.hits.total() / self.right.total() if self.right else 0.0

    def averaged(self, which: str) -> float:
        """Precision, recall or f1 under `average`; a label that nobody said or that nobody wanted counts 0."""
        labels = self.labels
        if self._options.average == "binary":
            labels = [label for label in labels if label.casefold() == self._options.positive_label.casefold()]
        if self._options.average == "micro":
            return _score(which, *(sum(count[label] for label in labels) for count in self._counts))
        scores = [_score(which, *(count[label] for count in self._counts)) for label in labels]
        if self._options.average == "weighted":
            weights = [self.right[label] for label in labels]
            total = sum(weights)
            return sum(score * w for score, w in zip(scores, weights, strict=True)) / total if total else 0.0
        return sum(scores) / len(scores) if scores else 0.0

    @property
    def _counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        return self.hits, self.said, self.right


def _score(which: str, hits: int, said: int, right: int) -> float:
    if which == "precision":
        return hits / said if said else 0.0
    if which == "recall":
        return hits / right if right else 0.0
    return 2 * hits / (said + right) if said + right else 0.0


class Classification(Metric):
    """accuracy, precision, recall and f1 over labels read out of the texts.

    Args:
        names: which of them are reported.
        options: how labels are read and averaged.
    """

    def __init__(self, names: tuple[str, ...], options: Options) -> None:
        self._names = names
        self._reader = LabelReader(options)
        self._counts = LabelCounts(options)

    def add(self, sample: Sample) -> Scores:
        """Reads both labels; they are written beside the sample."""
        said, right = self._reader.read(sample.predict), self._reader.reference(sample.label)
        self._counts.add(said, right)
        return {"predicted_label": said, "label": right, "correct": said == right}

    def result(self) -> dict[str, float]:
        """0 to 1."""
        counts = self._counts
        return {name: counts.accuracy() if name == "accuracy" else counts.averaged(name) for name in self._names}
