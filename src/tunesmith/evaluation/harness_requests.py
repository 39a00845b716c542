"""What lm-evaluation-harness asks of a model, answered by an engine: texts to ids as its own model class does it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tunesmith.core.errors import TunesmithError
from tunesmith.core.runs import Run
from tunesmith.core.types import Message, Role
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import Engine, GenerationRequest, SamplingParams
from tunesmith.inference.scoring import ScoreRequest

USUAL_CONTEXT = 2048
"""Tokens of a context that no one knows."""
USUAL_ANSWER = 256
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "num_beams", "length_penalty")
_GREEDY = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
Pair = tuple[list[int], list[int]]
Ask = Callable[[list[int]], Iterator[tuple[int, Any]]]
"""Takes the places of requests; yields (place, answer)."""


@dataclass(slots=True)
class HarnessAnswers:
    """Answers the three kinds of requests; answers that a journal holds are not asked for again.

    Attributes:
        engine: scores and generates.
        form: texts to ids, ids to text.
        known: answers by request.
        keep: takes each new answer as a row.
        run: where progress is noted.
    """

    engine: Engine
    form: ChatFormat
    known: dict[str, Any]
    keep: Callable[[dict[str, Any]], None] = lambda row: None
    run: Run | None = None

    @property
    def context(self) -> int:
        """Tokens that the model can read."""
        return self.engine.context or USUAL_CONTEXT

    @property
    def start(self) -> int:
        """The token before an empty context."""
        tokenizer = self.form.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids with the tokenizer's own beginning, unless the text has it already."""
        begun = bool(text) and text.startswith(str(self.form.tokenizer.decode([self.start])))
        return list(self.form.tokenizer.encode(text, add_special_tokens=not begun))

    def pair(self, context: str, continuation: str) -> Pair:
        """Ids of a context and of what follows; blanks between them belong to what follows. Cut from the left."""
        if not context:
            tail = list(self.form.tokenizer.encode(continuation, add_special_tokens=False))
            head, tail = ([self.start], tail) if tail[0] != self.start else (tail[:1], tail[1:])
        else:
            kept = context.rstrip()
            continuation = context[len(kept) :] + continuation
            head = self.encode(kept) or [self.start]
            tail = self.encode(kept + continuation)[len(head) :]
        if not tail:
            raise TunesmithError(f"a task of lm_eval asks for an empty continuation after {context[-60:]!r}")
        tail = tail[-self.context :]
        return head[-max(1, self.context + 1 - len(tail)) :], tail

    def rolling(self, text: str) -> list[Pair]:
        """Windows in which each token of a text is predicted once, with as much before it as fits."""
        ids, size = self.encode(text), self.context
        windows: list[Pair] = [([self.start], ids[:size])]
        done = size
        while done < len(ids):
            end = min(done + size, len(ids))
            windows.append((ids[end - size - 1 : done], ids[done:end]))
            done = end
        return windows

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation, and whether it is what the likeliest tokens give."""

        def ask(places: list[int]) -> Iterator[tuple[int, Any]]:
            pairs = [self.pair(*requests[place]) for place in places]
            for index, score in self.engine.score([ScoreRequest(head, tuple(tail)) for head, tail in pairs]):
                yield places[index], [sum(score.logprobs), score.is_greedy]

        return [(value, greedy) for value, greedy in self._answers("loglikelihood", requests, ask)]

    def loglikelihood_rolling(self, requests: Sequence[tuple[str]]) -> list[float]:
        """Log-probability (nats) of each whole text."""

        def ask(places: list[int]) -> Iterator[tuple[int, Any]]:
            windows = [(place, window) for place in places for window in self.rolling(requests[place][0])]
            left = {place: sum(other == place for other, _ in windows) for place in places}
            sums = dict.fromkeys(places, 0.0)
            asked = [ScoreRequest(head, tuple(tail)) for _, (head, tail) in windows]
            for index, score in self.engine.score(asked):
                place = windows[index][0]
                sums[place] += sum(score.logprobs)
                left[place] -= 1
                if not left[place]:
                    yield place, sums[place]

        return self._answers("loglikelihood_rolling", requests, ask)

    def generate_until(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The text after each context, up to the first of its stop texts."""

        def ask(places: list[int]) -> Iterator[tuple[int, Any]]:
            asked = [self._generation(*requests[place]) for place in places]
            for index, completion in self.engine.generate(asked):
                yield places[index], self.form.text_of(completion, stop=asked[index].sampling.stop)

        return self._answers("generate_until", requests, ask)

    def _generation(self, context: str, settings: Mapping[str, Any]) -> GenerationRequest:
        sampling = sampling_of(settings)
        room = max(1, self.context - sampling.max_new_tokens)
        ids = (self.encode(context) or [self.start])[-room:]
        return GenerationRequest(ids, sampling, self.form.end_token_ids)

    def chat(self, history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the configured template writes them, up to where the model answers."""
        if not add_generation_prompt:
            raise TunesmithError("this task of lm_eval begins the model's answer itself: use template: fewshot")
        messages = [Message(cast("Role", turn["role"]), turn["content"]) for turn in history]
        return str(self.form.tokenizer.decode(self.form.prompt_ids(messages)))

    def _answers(self, kind: str, requests: Sequence[Any], ask: Ask) -> list[Any]:
        keys = [request_key(kind, request) for request in requests]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        missing = [place for key, place in first.items() if key not in self.known]
        with ProgressBar(kind, len(first), run=self.run) as bar:
            done = len(first) - len(missing)
            for place, answer in ask(sorted(missing)) if missing else ():
                self.known[keys[place]] = answer
                self.keep({"key": keys[place], "answer": answer})
                done += 1
                bar.show(done)
        return [self.known[key] for key in keys]


def request_key(kind: str, request: Any) -> str:
    """Names a request by what it asks."""
    return hashlib.sha256(json.dumps([kind, request], sort_keys=True, default=str).encode()).hexdigest()[:32]


def sampling_of(settings: Mapping[str, Any]) -> SamplingParams:
    """The harness's `generation_kwargs`; without do_sample or a temperature the likeliest tokens.

    Raises:
        TunesmithError: a setting that the engine does not have.
    """
    given = dict(settings)
    until = given.pop("until", None) or []
    lengths = [int(given.pop(name)) for name in _LENGTHS if name in given]
    chosen = {name: given.pop(name) for name in _SAMPLING if given.get(name) is not None}
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        raise TunesmithError(f"a task of lm_eval asks for {', '.join(given)}, which generation here does not have")
    chosen.setdefault("do_sample", float(chosen.get("temperature", 0)) > 0)
    stop = tuple([until] if isinstance(until, str) else map(str, until))
    return SamplingParams(max_new_tokens=lengths[0] if lengths else USUAL_ANSWER, stop=stop, **(_GREEDY | chosen))
