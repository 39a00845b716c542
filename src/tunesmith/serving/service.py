"""What routes share: runner, dialect, names, limits, counters; and how a request is made ready for the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunesmith.core.log import get_logger
from tunesmith.inference.answer import AnswerReader
from tunesmith.inference.dialect import Asked
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.runner import EngineRunner
from tunesmith.serving.constraint import constrained
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.errors import bad_request, only_for, too_late
from tunesmith.serving.job import Job, busy
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.names import ModelNames
from tunesmith.serving.requests import MOST_CHOICES, ChatRequest, CompletionRequest, ScoreRequest
from tunesmith.serving.sampling import check_room, sampling_of
from tunesmith.serving.settings import ServerSettings
from tunesmith.serving.vocabulary import Vocabulary

T = TypeVar("T")
_MOST_LOGGED = 20_000
_logger = get_logger(__name__)


@dataclass(slots=True)
class Service:
    """One server.

    Attributes:
        runner: owns the engine.
        dialect: messages to ids and back.
        defaults: sampling as the configuration says.
        names: models that may be asked for.
        settings: address, key, limits.
        context: prompt and answer together, in tokens; None: unknown.
        is_reward_model: it scores and does not answer.
        metrics: counters.
    """

    runner: EngineRunner
    dialect: Dialect
    defaults: SamplingParams
    names: ModelNames
    settings: ServerSettings
    context: int | None = None
    is_reward_model: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    vocabulary: Vocabulary = field(init=False)
    _scoring: int = 0
    # Tokenizers are not made for several threads; one thread of its own keeps long prompts off the event loop.
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tunesmith-prompts"))

    def __post_init__(self) -> None:
        dialect = self.dialect
        self.vocabulary = Vocabulary(dialect.tokenizer, dialect.form.end_token_ids, dialect.hidden_ids)

    async def apart(self, work: Callable[[], T]) -> T:
        """Runs `work` in the thread for prompts."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def chat(self, body: ChatRequest) -> Job:
        """Sends a chat request to the engine.

        Raises:
            ApiError: it cannot be answered; says why.
        """
        adapter = self.names.resolve(body.model)
        sampling = sampling_of(body, self.defaults, self.dialect.vocabulary_size)
        asked = await self.apart(lambda: self.dialect.ask(body))
        sampling = check_room(len(asked.ids), body, sampling, self.context)
        held, constraint = await self.apart(lambda: constrained(body, asked, self.dialect.tool_format, self.vocabulary))
        request = GenerationRequest(held.ids, sampling, self.dialect.form.end_token_ids, adapter, constraint)
        return self._start([request], [self.dialect.reader(held, sampling.stop) for _ in range(sampling.n)])

    async def complete(self, body: CompletionRequest) -> tuple[Job, list[str]]:
        """Sends a text completion to the engine; returns the prompts as text, too, for `echo`.

        Raises:
            ApiError: it cannot be answered; says why.
        """
        adapter = self.names.resolve(body.model)
        sampling = sampling_of(body, self.defaults, self.dialect.vocabulary_size)
        prompts = await self.apart(lambda: self._prompts(body))
        if len(prompts) * sampling.n > 8 * MOST_CHOICES:
            raise bad_request(f"prompt: {len(prompts)} prompts with n={sampling.n} are too many answers", "n")
        requests, readers = [], []
        for ids, _ in prompts:
            fitting = check_room(len(ids), body, sampling, self.context)
            requests.append(GenerationRequest(ids, fitting, self.dialect.form.end_token_ids, adapter))
            readers += [self.dialect.reader(Asked(ids), sampling.stop) for _ in range(sampling.n)]
        return self._start(requests, readers), [text for _, text in prompts]

    def _prompts(self, body: CompletionRequest) -> list[tuple[list[int], str]]:
        """(ids, text) of each prompt."""
        given: Sequence[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if isinstance(given[0], int):
            given = [given]
        return [self._prompt(prompt, f"prompt[{index}]") for index, prompt in enumerate(given)]

    def _prompt(self, prompt: str | list[int], place: str) -> tuple[list[int], str]:
        if isinstance(prompt, str):
            ids, text = self.dialect.text_ids(prompt), prompt
            if not ids:
                raise bad_request(f"{place} has no tokens: this tokenizer puts none before a text", place)
            return ids, text
        wrong = [i for i in prompt if not 0 <= i < self.dialect.vocabulary_size]
        if wrong:
            raise bad_request(
                f"{place}: {wrong[0]} is no token id; they end at {self.dialect.vocabulary_size - 1}", place
            )
        return prompt, "".join(map(self.dialect.token_text, prompt))

    async def score(self, body: ScoreRequest) -> list[float]:
        """Scores of texts as they are: marks of the template belong into them, none are added.

        Raises:
            ApiError: it is no reward model, too many wait, a text is empty or too long, or the time is over.
        """
        self.names.resolve(body.model)
        if not self.is_reward_model:
            raise only_for("reward models give scores; this model answers (POST /v1/chat/completions)")
        if self._scoring >= self.settings.max_queue:
            raise busy(f"{self._scoring} requests wait already; try again later", self.runner)
        sequences = await self.apart(lambda: [self._scored(text, i, body) for i, text in enumerate(body.messages)])
        self._scoring += 1
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await self.on_engine(lambda engine: engine.scores(sequences))
        except TimeoutError as error:
            raise too_late(self.settings.timeout) from error
        finally:
            self._scoring -= 1
            self.metrics.prompt_tokens += sum(map(len, sequences))

    def _scored(self, text: str, index: int, body: ScoreRequest) -> list[int]:
        ids = self.dialect.plain_ids(text)
        place = f"messages[{index}]"
        if not ids:
            raise bad_request(f"{place} is empty: there is nothing to score", place)
        if body.max_length is not None:
            ids = ids[: body.max_length]
        if self.context is not None and len(ids) > self.context:
            raise bad_request(
                f"{place} has {len(ids)} tokens, this model reads {self.context}; send max_length to cut texts",
                place,
                "context_length_exceeded",
            )
        return ids

    def _start(self, requests: list[GenerationRequest], readers: list[AnswerReader]) -> Job:
        if self.is_reward_model:
            raise only_for("a reward model is served here: it gives scores (POST /v1/score/evaluation), no answers")
        return Job(self.runner, requests, readers, self.metrics, self.settings.timeout)

    async def on_engine(self, work: Callable[[Any], T]) -> T:
        """Runs `work(engine)` between two of its steps."""
        return await asyncio.wrap_future(self.runner.call(work))

    def log(self, route: str, value: Any) -> None:
        """With API_VERBOSE: writes a request or an answer to the log; the key never gets there."""
        if not self.settings.is_verbose:
            return
        text = json.dumps(value, ensure_ascii=False)
        if key := self.settings.api_key:
            text = text.replace(key, "***").replace(json.dumps(key, ensure_ascii=False)[1:-1], "***")
        _logger.info("%s %s", route, text[:_MOST_LOGGED])

    def close(self) -> None:
        """Ends the threads; nothing is under way any more."""
        self._writer.shutdown(wait=False, cancel_futures=True)
        self.runner.close(drain=False, timeout=10.0)
