"""Rewards of generated answers by rule or by the user's own function; reward models and servers have their own files.

A reward is named in `reward_funcs`: `json_valid`, `length:40`, `regex:PATTERN`, `exact_match`, or `my.py:score`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import ConfigError, Problem, TrainingError
from tunesmith.core.lazy import nearest


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer to be rewarded.

    Attributes:
        prompt: what the user said last.
        completion: the answer's text without special tokens.
        reference: the data set's own answer; empty where the row has none.
        text: prompt and answer as the model saw them, special tokens included.
        n_tokens: tokens of the answer.
        is_whole: whether it ended by itself, not at the limit.
        ids: tokens of prompt and answer.
    """

    prompt: str
    completion: str
    reference: str
    text: str
    n_tokens: int
    is_whole: bool
    ids: tuple[int, ...] = ()


Reward = Callable[[Sequence[Sample]], Sequence[float]]
"""Answers to one number each; higher is better."""


def _exact_match(argument: str) -> Reward:
    """1 where the answer is the reference, blanks at the ends aside."""
    return lambda samples: [float(one.completion.strip() == one.reference.strip()) for one in samples]


def _regex(argument: str) -> Reward:
    """1 where the pattern is found in the answer."""
    pattern = re.compile(argument, re.DOTALL)
    return lambda samples: [float(pattern.search(one.completion) is not None) for one in samples]


def _json_valid(argument: str) -> Reward:
    """1 for an answer that is a JSON object or list, 0 for others."""

    def is_json(text: str) -> bool:
        try:
            return isinstance(json.loads(text), dict | list)
        except (ValueError, RecursionError):
            return False

    return lambda samples: [float(is_json(one.completion)) for one in samples]


def _length(argument: str) -> Reward:
    """1 at the wanted number of tokens, falling to 0 at none and at twice as many."""
    wanted = int(argument)
    if wanted < 1:
        raise ValueError(f"{wanted} is no length")
    return lambda samples: [max(0.0, 1 - abs(one.n_tokens - wanted) / wanted) for one in samples]


_ARGUMENT = {
    "exact_match": "",
    "json_valid": "",
    "regex": "a pattern, as in regex:^\\d+$",
    "length": "tokens, as in length:40",
}
_RULES = {"exact_match": _exact_match, "json_valid": _json_valid, "regex": _regex, "length": _length}


def load_rewards(names: Sequence[str]) -> list[Reward]:
    """The rewards behind `reward_funcs`.

    Raises:
        ConfigError: every name that means nothing, at once.
    """
    rewards, problems = [], []
    for name in names:
        try:
            rewards.append(_load(name))
        except ValueError as error:
            problems.append(Problem(f"reward_funcs: {name}: {error}", "reward_funcs"))
    if problems:
        raise ConfigError(problems)
    return rewards


def _load(name: str) -> Reward:
    if re.search(r"\.py:\w+$", name):
        path, _, function = name.rpartition(":")
        return user_reward(Path(path), function)
    word, _, argument = name.partition(":")
    if word not in _RULES:
        guess = nearest(word, _RULES)
        hint = f"; did you mean {guess}?" if guess else ""
        raise ValueError(f"there is no such reward{hint} (there are {', '.join(_RULES)} and FILE.py:FUNCTION)")
    wanted = _ARGUMENT[word]
    if bool(wanted) != bool(argument):
        raise ValueError(f"needs {wanted}" if wanted else "takes nothing behind a colon")
    try:
        return _RULES[word](argument)
    except (re.error, ValueError) as error:
        raise ValueError(f"{error}: it needs {wanted}") from error


COLUMNS = ("prompts", "completions", "references", "texts", "lengths")
"""What a user's function may ask for by the names of its parameters."""


def user_reward(path: Path, function: str) -> Reward:
    """A function of the user's: `def score(completions, references): return [...]`, one number for each answer.

    Raises:
        ValueError: no such file or function, or it asks for something unknown.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"tunesmith_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{path} has no function {function}")
    wanted = _wanted(found, f"{path}:{function}")
    return _Named(found, wanted, f"{path}:{function}")


def _wanted(function: Callable[..., Any], where: str) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return list(COLUMNS)
    names = [one.name for one in parameters if one.default is one.empty or one.name in COLUMNS]
    if unknown := [name for name in names if name not in COLUMNS]:
        raise ValueError(f"{where} asks for {', '.join(unknown)}; it can have {', '.join(COLUMNS)}")
    return names


@dataclass(frozen=True, slots=True)
class _Named:
    """A user's function with the columns it asks for; what it returns is checked before it becomes a gradient."""

    function: Callable[..., Any]
    wanted: list[str]
    where: str

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        columns = {
            "prompts": [one.prompt for one in samples],
            "completions": [one.completion for one in samples],
            "references": [one.reference for one in samples],
            "texts": [one.text for one in samples],
            "lengths": [one.n_tokens for one in samples],
        }
        try:
            scores = self.function(**{name: columns[name] for name in self.wanted})
        except Exception as error:
            raise TrainingError(f"reward {self.where} failed: {type(error).__name__}: {error}") from error
        return checked_scores(scores, len(samples), self.where)


def checked_scores(scores: Any, count: int, where: str) -> list[float]:
    """One finite number for each answer.

    Raises:
        TrainingError: another number of scores, or one that is no finite number.
    """
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError) as error:
        raise TrainingError(f"reward {where}: it must return a list of numbers: {error}") from error
    if len(numbers) != count:
        raise TrainingError(f"reward {where}: {len(numbers)} scores for {count} answers")
    if bad := [number for number in numbers if not math.isfinite(number)]:
        raise TrainingError(f"reward {where}: a score is {bad[0]}; every score must be a finite number")
    return numbers
