"""`my.py:function` as a metric: a function of one answer and its reference, or of all of them."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.evaluation.metrics.base import MeanMetric, Metric, Sample, Scores

_ONE = ("predict", "label", "prompt")
_ALL = ("predictions", "labels", "prompts")


def load_function(file: str, name: str) -> Callable[..., Any]:
    """A function out of a Python file, which is run once however often it is asked for.

    Raises:
        TunesmithError: the file cannot be run, or has no such function.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise TunesmithError(f"metrics: there is no Python file {file}")
    found = _names_of(path, path.stat().st_mtime_ns)
    if not callable(found.get(name)):
        known = [key for key, value in found.items() if inspect.isfunction(value)]
        raise TunesmithError(f"metrics: {file} has no function {name}; it has {', '.join(known) or 'none'}")
    return found[name]  # type: ignore[no-any-return]


@functools.cache
def _names_of(path: Path, changed: int) -> dict[str, Any]:
    """What a file defines; run again when it changed."""
    del changed
    spec = importlib.util.spec_from_file_location(f"tunesmith_metric_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TunesmithError(f"metrics: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TunesmithError(f"metrics: {path} cannot be run: {_last(error)}") from error
    return vars(module)


def function_metric(file: str, name: str) -> Metric:
    """The metric around a function; what its parameters are called says what it takes.

    `predict, label` (and `prompt`): one sample. `predictions, labels` (and `prompts`): lists of all, at the end.

    Raises:
        TunesmithError: parameters of other names.
    """
    function = load_function(file, name)
    names = tuple(inspect.signature(function).parameters)
    where = f"{file}:{name}"
    if names and set(names) <= set(_ONE):
        return SampleFunction(function, names, where)
    if names and set(names) <= set(_ALL):
        return SetFunction(function, names, where)
    raise TunesmithError(
        f"metrics: {where} takes ({', '.join(names)}); it is to take (predict, label) or (predictions, labels), "
        "prompt or prompts beside them"
    )


class SampleFunction(MeanMetric):
    """The mean of a function of one sample; it gives a number, a truth, or a mapping of names to numbers."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...], where: str) -> None:
        super().__init__()
        self._function = function
        self._parameters = names
        self._where = where

    def score(self, sample: Sample) -> Mapping[str, float | bool]:
        """What the function says."""
        values = {name: getattr(sample, name) for name in self._parameters}
        return called(self._function, values, self._where)


class SetFunction(Metric):
    """A function of all samples; their texts are kept until the end."""

    is_running = False

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...], where: str) -> None:
        self._function = function
        self._texts: dict[str, list[str]] = {name: [] for name in names}
        self._where = where

    def add(self, sample: Sample) -> Scores:
        """Keeps the texts; a sample has no score of its own."""
        of_sample = dict(zip(_ALL, (sample.predict, sample.label, sample.prompt), strict=True))
        for name, texts in self._texts.items():
            texts.append(of_sample[name])
        return {}

    def result(self) -> dict[str, float]:
        """What the function says."""
        return {name: float(value) for name, value in called(self._function, self._texts, self._where).items()}


def called(function: Callable[..., Any], values: Mapping[str, Any], where: str) -> dict[str, float | bool]:
    """Calls a user's function and checks what it gives.

    Raises:
        TunesmithError: it fails, or gives something else than finite numbers.
    """
    try:
        found = function(**values)
    except Exception as error:
        raise TunesmithError(f"metrics: {where} failed: {_last(error)}") from error
    scores = dict(found) if isinstance(found, Mapping) else {where.rpartition(":")[2]: found}
    for name, value in scores.items():
        if hasattr(value, "item"):  # a number of numpy or torch
            scores[name] = value = value.item()
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise TunesmithError(f"metrics: {where} gave {value!r} for {name}; a finite number is wanted")
    return scores


def _last(error: Exception) -> str:
    """The error and the line of the user's file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
