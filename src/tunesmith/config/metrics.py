"""Names and options of the metrics of generated answers, and what is wrong with a choice of them. Computes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.lazy import nearest

CLASSIC = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
"""What is computed where nobody chooses: characters and jieba's words, as LLaMA-Factory's users know the numbers."""
METRICS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in CLASSIC},
    "bleu": ("bleu",),
    "corpus_bleu": ("corpus_bleu",),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "chrf": ("chrf",),
    "exact_match": ("exact_match",),
    "contains": ("contains",),
    "token_f1": ("token_f1",),
    "number_match": ("number_match",),
    "regex_match": ("regex_match",),
    "json_valid": ("json_valid",),
    "json_equal": ("json_equal",),
    "accuracy": ("accuracy",),
    "precision": ("precision",),
    "recall": ("recall",),
    "f1": ("f1",),
    "span_precision": ("span_precision",),
    "span_recall": ("span_recall",),
    "span_f1": ("span_f1",),
}
"""Metric -> the names under which its results stand."""
OPTIONS: dict[str, tuple[type, ...]] = {
    "language": (str,),
    "labels": (list,),
    "label_pattern": (str,),
    "label_take": (str,),
    "ignore_case": (bool,),
    "average": (str,),
    "positive_label": (str,),
    "span_format": (str,),
    "span_pattern": (str,),
    "span_keys": (list,),
    "regex": (str,),
    "json_keys": (list,),
}
CHOICES = {
    "language": ("auto", "zh", "words", "characters"),
    "label_take": ("first", "last"),
    "average": ("macro", "micro", "weighted", "binary"),
    "span_format": ("json", "lines", "pattern"),
}
_PATTERNS = ("label_pattern", "span_pattern", "regex")
_PYTHON = re.compile(r"(?P<file>.+\.py):(?P<function>[^:]+)")


def split_function(name: str) -> tuple[str, str] | None:
    """File and function of `my.py:function`; None for other names."""
    match = _PYTHON.fullmatch(name)
    return (match["file"], match["function"]) if match else None


def result_names(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of the results of some metrics; None where a function of the user's decides them."""
    if any(split_function(name) for name in names):
        return None
    return tuple(result for name in names for result in METRICS.get(name, ()))


def chosen_metrics(config: RunConfig) -> tuple[str, ...]:
    """The metrics of predictions."""
    return config.metrics or CLASSIC


def training_metrics(config: RunConfig) -> tuple[str, ...]:
    """The metrics on answers that evaluations while training compute; empty: none."""
    if config.prediction_loss_only:
        return ()
    if config.eval_metrics:
        return config.eval_metrics
    return chosen_metrics(config) if config.predict_with_generate else ()


def metrics_are_known(config: RunConfig) -> Iterator[Fault]:
    """Names are ours, or functions in files."""
    for key in ("metrics", "eval_metrics"):
        for name in getattr(config, key):
            if name in METRICS:
                continue
            function = split_function(name)
            if function is None:
                near = nearest(name, METRICS)
                hint = f"did you mean {near}? " if near else ""
                yield Fault((key,), f"{key}: nobody knows {name}", f"{hint}{', '.join(METRICS)}; or my.py:function")
            elif not function[1].isidentifier():
                yield Fault((key,), f"{key}: {name} names no function behind the colon")


def options_fit(config: RunConfig) -> Iterator[Fault]:
    """Options have names, types and choices; some metrics need theirs."""
    given: Mapping[str, Any] = config.metric_options or {}
    key = ("metric_options",)
    for name, value in given.items():
        if name not in OPTIONS:
            near = nearest(name, OPTIONS)
            hint = f"did you mean {near}? " if near else ""
            yield Fault(key, f"metric_options: unknown option {name}", f"{hint}{', '.join(OPTIONS)}")
        elif not isinstance(value, OPTIONS[name]):
            kind = {list: "a list", str: "text", bool: "true or false"}[OPTIONS[name][0]]
            yield Fault(key, f"metric_options: {name} takes {kind}, not {value!r}")
        elif name in CHOICES and value not in CHOICES[name]:
            yield Fault(key, f"metric_options: {name} cannot be {value!r}", f"choices: {', '.join(CHOICES[name])}")
        elif name in _PATTERNS:
            yield from _pattern_faults(name, str(value))
    yield from _missing_options(config, given)


def _pattern_faults(name: str, value: str) -> Iterator[Fault]:
    try:
        groups = re.compile(value).groupindex
    except re.error as error:
        yield Fault(("metric_options",), f"metric_options: {name} is no regular expression: {error}")
        return
    if name == "span_pattern" and "text" not in groups:
        fix = "for example (?P<type>\\w+): (?P<text>[^;]+)"
        yield Fault(("metric_options",), "metric_options: span_pattern needs a group (?P<text>...)", fix)


def _missing_options(config: RunConfig, given: Mapping[str, Any]) -> Iterator[Fault]:
    names = {*config.metrics, *config.eval_metrics}
    if "regex_match" in names and "regex" not in given:
        fix = "write metric_options: {regex: ...}"
        yield Fault(("metrics", "metric_options"), "regex_match needs the option regex", fix)
    if given.get("average") == "binary" and "positive_label" not in given:
        fix = "name the label that counts as found"
        yield Fault(("metric_options",), "metric_options: average binary needs positive_label", fix)
    if given.get("span_format") == "pattern" and "span_pattern" not in given:
        yield Fault(("metric_options",), "metric_options: span_format pattern needs span_pattern")


def best_metric_is_computed(config: RunConfig) -> Iterator[Fault]:
    """`metric_for_best_model` must be among what evaluations compute."""
    name = (config.metric_for_best_model or "").removeprefix("eval_")
    if not name or not config.do_train or config.eval_strategy == "no" or config.eval_on_each_dataset:
        return
    answers = result_names(training_metrics(config))
    if answers is None or config.stage != "sft":
        return
    known = ("loss", *(("accuracy",) if config.compute_accuracy else ()), *answers)
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}? " if near else ""
        adds = next((f"; eval_metrics: [{metric}] adds it" for metric, found in METRICS.items() if name in found), "")
        fix = f"{hint}evaluations compute {', '.join(known)}{adds}"
        yield Fault(("metric_for_best_model",), f"metric_for_best_model: no evaluation computes {name}", fix)


def answers_can_be_found(config: RunConfig) -> Iterator[Fault]:
    """Answers of evaluation rows are where their loss is."""
    evaluates = config.eval_strategy != "no" or config.do_eval
    if config.eval_metrics and not evaluates:
        what = "eval_metrics needs evaluation while training"
        yield Fault(("eval_metrics", "eval_strategy"), what, "set eval_strategy: steps or epoch")
    if config.eval_metrics and config.prediction_loss_only:
        what = "eval_metrics and prediction_loss_only exclude each other"
        yield Fault(("eval_metrics", "prediction_loss_only"), what, "keep one")
    names = training_metrics(config)
    if not names or not evaluates:
        return
    asker = "eval_metrics" if config.eval_metrics else "predict_with_generate"
    if config.train_on_prompt:
        what = f"{asker} cannot tell prompts from answers under train_on_prompt: both carry loss"
        yield Fault((asker, "train_on_prompt"), what, "leave one out, or score with do_predict afterwards")
    if config.eval_metrics and config.stage != "sft":
        yield Fault((asker, "stage"), f"{asker} is for stage sft, not {config.stage}")
    if config.compute_accuracy and "accuracy" in names:
        what = "compute_accuracy and the metric accuracy both write eval_accuracy"
        yield Fault(("compute_accuracy", asker), what, "keep one")


def functions_exist(config: RunConfig) -> Iterator[Fault]:
    """Files of functions must be there."""
    for key in ("metrics", "eval_metrics", "reward_funcs"):
        if config.command not in KEYS[key].commands:
            continue
        for function in filter(None, map(split_function, getattr(config, key))):
            if not Path(function[0]).expanduser().is_file():
                yield Fault((key,), f"{key}: there is no file {function[0]}")


_COMMANDS = KEYS["metrics"].commands
RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (_COMMANDS, metrics_are_known),
    (_COMMANDS, options_fit),
    (("train",), best_metric_is_computed),
    (("train",), answers_can_be_found),
)
"""The commands that a rule is for, and the rule."""
