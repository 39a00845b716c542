"""Names of metrics to what measures: one scoreboard for prediction, evaluation while training, and own tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tunesmith.config.metrics import CLASSIC, METRICS, split_function
from tunesmith.core.errors import TunesmithError
from tunesmith.core.lazy import nearest
from tunesmith.evaluation.metrics import form, overlap
from tunesmith.evaluation.metrics.base import Metric, Options, Sample, Scores
from tunesmith.evaluation.metrics.function import function_metric
from tunesmith.evaluation.metrics.labels import Classification
from tunesmith.evaluation.metrics.spans import SpanScores

_SINGLE: dict[str, Callable[[Options], Metric]] = {
    "bleu": overlap.Bleu,
    "corpus_bleu": overlap.CorpusBleu,
    "rouge": overlap.Rouge,
    "chrf": overlap.Chrf,
    "token_f1": overlap.TokenF1,
    "exact_match": lambda options: overlap.ExactMatch(),
    "contains": lambda options: overlap.Contains(),
    "number_match": lambda options: form.NumberMatch(),
    "regex_match": form.RegexMatch,
    "json_valid": form.JsonValid,
    "json_equal": lambda options: form.JsonEqual(),
}
_TOGETHER: tuple[tuple[tuple[str, ...], Callable[[tuple[str, ...], Options], Metric]], ...] = (
    (CLASSIC, lambda names, options: overlap.Classic(names)),
    (("accuracy", "precision", "recall", "f1"), Classification),
    (("span_precision", "span_recall", "span_f1"), SpanScores),
)
"""Metrics that one object computes together."""


class Scoreboard:
    """Takes samples and keeps the totals of some metrics.

    Args:
        names: as in the key `metrics`.
        options: the key `metric_options`.

    Raises:
        TunesmithError: a metric that nobody knows, or a function that cannot be used.
    """

    def __init__(self, names: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        self._metrics = list(_make(dict.fromkeys(names), Options.of(options)))
        self.count = 0
        self._words = ""

    def add(self, sample: Sample) -> Scores:
        """Takes one sample; returns its own scores.

        Raises:
            TunesmithError: a function of the user's fails.
        """
        scores: Scores = {}
        for metric in self._metrics:
            scores |= metric.add(sample)
        self.count += 1
        return scores

    def result(self) -> dict[str, float]:
        """The scores of all samples.

        Raises:
            TunesmithError: two metrics give results of one name.
        """
        found: dict[str, float] = {}
        for metric in self._metrics:
            result = metric.result()
            if twice := set(result) & set(found):
                raise TunesmithError(f"metrics: two of them give a result called {', '.join(sorted(twice))}")
            found |= result
        return found

    def in_words(self) -> str:
        """The first result so far, for a progress bar; it is renewed with every tenth sample."""
        running = next((metric for metric in self._metrics if metric.is_running), None)
        if running is not None and self.count and (self.count % 10 == 0 or not self._words):
            name, value = next(iter(running.result().items()))
            self._words = f"{name} {value:.3g}"
        return self._words

    def take(self, samples: Iterable[Sample]) -> dict[str, float]:
        """Adds all samples; returns the result."""
        for sample in samples:
            self.add(sample)
        return self.result()


def _make(names: Iterable[str], options: Options) -> Iterable[Metric]:
    waiting = list(names)
    while waiting:
        name = waiting[0]
        together = next((entry for entry in _TOGETHER if name in entry[0]), None)
        if together is not None:
            members, make = together
            yield make(tuple(other for other in waiting if other in members), options)
            waiting = [other for other in waiting if other not in members]
            continue
        waiting.pop(0)
        function = split_function(name)
        if function is not None:
            yield function_metric(*function)
        elif name in _SINGLE:
            yield _SINGLE[name](options)
        else:
            near = nearest(name, METRICS)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(METRICS)}"
            raise TunesmithError(f"metrics: nobody knows {name}: {hint}")
