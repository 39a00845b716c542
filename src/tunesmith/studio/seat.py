"""The model that pages talk to: loaded, asked by many at once, let go. Knows no page and no Gradio."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tunesmith.core.errors import BusyError, ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.inference.answer import News
from tunesmith.inference.dialect import Asked, ModelDialect
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import OpenModel, open_model
from tunesmith.inference.runner import EngineFailedError, EngineRunner, Ticket

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

SLOTS = 8
"""Answers under way together."""
_logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come of an answer.

    Attributes:
        reasoning: the thought so far.
        content: the text so far.
        calls: tool calls; they come at the end.
        finish_reason: set when it is over; `stopped`: somebody pressed stop.
        n_tokens: made so far.
        seconds: since it was asked for.
        thought_seconds: until the thought was over, or so far.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    n_tokens: int = 0
    seconds: float = 0.0
    thought_seconds: float = 0.0

    @property
    def message(self) -> Message:
        """As a message of the conversation."""
        return Message("assistant", self.content, self.calls, self.reasoning or None)

    def grown(self, news: News, n_tokens: int, seconds: float) -> Answer:
        """With a little more."""
        content = self.content + news.content
        return replace(
            self,
            reasoning=self.reasoning + news.reasoning,
            content=content,
            calls=news.calls or self.calls,
            finish_reason=news.finish_reason,
            n_tokens=n_tokens,
            seconds=seconds,
            thought_seconds=self.thought_seconds if self.content else seconds,
        )


@dataclass(slots=True)
class _Loaded:
    """A model in memory.

    Attributes:
        name: what the page calls it.
        runner: owns the engine.
        dialect: conversations to ids and back.
        adapter: what requests name to get the configured model.
        defaults: sampling as the configuration says.
        hides_special: whether special tokens are left out of the text.
        writer: one thread: tokenizers are not made for several.
    """

    name: str
    runner: EngineRunner
    dialect: ModelDialect
    adapter: str | None
    defaults: SamplingParams
    hides_special: bool = True
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tunesmith-prompts"))


class ModelSeat:
    """Holds one model, or none.

    Args:
        opening: makes an engine from a configuration.
    """

    def __init__(self, opening: Callable[[RunConfig], OpenModel] | None = None) -> None:
        self._opening = opening or (lambda config: open_model(config, batch_size=SLOTS))
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()
        self._tickets: dict[Hashable, Ticket] = {}

    @property
    def name(self) -> str | None:
        """The model's name; None: nothing is loaded."""
        return self._loaded.name if self._loaded else None

    @property
    def defaults(self) -> SamplingParams:
        """Sampling as the configuration of the loaded model says."""
        return self._loaded.defaults if self._loaded else SamplingParams()

    @property
    def thinks(self) -> bool:
        """Whether the loaded model has a thinking mode."""
        return self._loaded is not None and self._loaded.dialect.thought_words is not None

    @property
    def n_running(self) -> int:
        """Answers under way or waiting."""
        if self._loaded is None:
            return 0
        stats = self._loaded.runner.stats()
        return stats.running + stats.queued

    def load(self, config: RunConfig) -> None:
        """Loads what a configuration names, in place of what is loaded; takes its time.

        Raises:
            TunesmithError: it cannot be loaded; nothing is loaded then.
        """
        with self._lock:
            self._drop()
            opened = self._opening(config)
            self._loaded = _Loaded(
                name=_name_of(config),
                runner=EngineRunner(opened.engine),
                dialect=ModelDialect(opened.form),
                adapter=opened.adapter,
                defaults=SamplingParams.from_config(config, seed=config.seed if "seed" in config.explicit else None),
                hides_special=config.skip_special_tokens,
            )
        _logger.info("%s is loaded", self._loaded.name)

    def unload(self) -> None:
        """Lets the model go; answers under way end."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._loaded is None:
            return
        gone, self._loaded = self._loaded, None
        gone.runner.close(drain=False, timeout=30.0)
        gone.writer.shutdown(wait=False, cancel_futures=True)
        name = gone.name
        del gone
        _give_memory_back()
        _logger.info("%s is unloaded", name)

    async def answer(
        self, page: Hashable, conversation: Conversation, sampling: SamplingParams, thinking: bool | None = None
    ) -> AsyncIterator[Answer]:
        """Yields the answer as it grows; leaving the iterator ends the work.

        Args:
            page: who asks; `stop` takes the same.
            conversation: ends with what is to be answered.
            sampling: how tokens are chosen.
            thinking: whether the model is to think; None: as the configuration says.

        Raises:
            TunesmithError: nothing is loaded, the conversation cannot be written, or it does not fit.
        """
        loaded = self._loaded
        if loaded is None:
            raise ModelError("no model is loaded; press Load first")
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        asked: Asked = await loop.run_in_executor(loaded.writer, loaded.dialect.written, conversation, thinking)
        ends = loaded.dialect.form.end_token_ids
        reader = loaded.dialect.reader(asked, sampling.stop)
        if not loaded.hides_special:
            reader.hidden_ids = frozenset()
        answer = Answer()
        async with loaded.runner.submit(GenerationRequest(asked.ids, sampling, ends, loaded.adapter)) as ticket:
            self._tickets[page] = ticket
            try:
                async for delta in ticket:
                    answer = answer.grown(reader.push(delta), reader.n_tokens, time.monotonic() - began)
                    yield answer
                    if reader.is_over:
                        return
            except BusyError as error:
                if self._loaded is loaded:
                    raise
                raise ModelError("the model was unloaded before the answer was whole") from error
            except EngineFailedError as error:
                raise ModelError(f"{error}; the log says more") from error
            finally:
                if self._tickets.get(page) is ticket:
                    del self._tickets[page]
        yield replace(answer, finish_reason="stopped")

    def stop(self, page: Hashable) -> None:
        """Ends the answer that a page waits for; what has come stays."""
        ticket = self._tickets.get(page)
        if ticket is not None:
            ticket.cancel()


def _name_of(config: RunConfig) -> str:
    return " + ".join([config.model_name_or_path or "", *config.adapter_name_or_path])


def _give_memory_back() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
