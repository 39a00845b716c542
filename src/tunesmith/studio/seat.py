"""The model that pages talk to, or two that are held against each other. Knows no page and no Gradio."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.config.schema.evaluation import Generating
from tunesmith.config.schema.key import keys_of
from tunesmith.core.errors import BusyError, ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.inference.answer import News
from tunesmith.inference.dialect import Asked, ModelDialect
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import OpenModel, open_model
from tunesmith.inference.runner import EngineFailedError, EngineRunner, Ticket
from tunesmith.inference.serving_adapters import can_stay_apart, check_configured, find_configured

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

SLOTS = 8
"""Answers under way together."""
_DRAWING = tuple(keys_of(Generating))
"""Keys of how answers are drawn, which two models over one base need not share."""
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


@dataclass(slots=True, eq=False)
class _Voice:
    """One model in memory; two may share a base, and then all but the adapter.

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

    def close(self) -> None:
        """Ends answers under way; a second time does nothing."""
        self.runner.close(drain=False, timeout=30.0)
        self.writer.shutdown(wait=False, cancel_futures=True)


class ModelSeat:
    """Holds one model, two beside each other, or none.

    Args:
        opening: makes an engine from a configuration.
    """

    def __init__(self, opening: Callable[[RunConfig], OpenModel] | None = None) -> None:
        self._opening = opening or (lambda config: open_model(config, batch_size=SLOTS))
        self._voices: tuple[_Voice, ...] = ()
        self._lock = threading.Lock()
        self._tickets: dict[Hashable, Ticket] = {}

    @property
    def name(self) -> str | None:
        """The name of the model, or of both; None: nothing is loaded."""
        return " | ".join(self.names) or None

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each model that answers."""
        return tuple(voice.name for voice in self._voices)

    @property
    def shares_base(self) -> bool:
        """Whether two models answer and their base is in memory once."""
        return len(self._voices) > len({id(voice.runner) for voice in self._voices})

    @property
    def defaults(self) -> SamplingParams:
        """Sampling as the configuration of the loaded model says."""
        return self._voices[0].defaults if self._voices else SamplingParams()

    @property
    def thinks(self) -> bool:
        """Whether a loaded model has a thinking mode."""
        return any(voice.dialect.thought_words is not None for voice in self._voices)

    @property
    def n_running(self) -> int:
        """Answers under way or waiting."""
        stats = [runner.stats() for runner in self._runners()]
        return sum(one.running + one.queued for one in stats)

    def _runners(self) -> list[EngineRunner]:
        return list({id(voice.runner): voice.runner for voice in self._voices}.values())

    def load(self, config: RunConfig, beside: RunConfig | None = None) -> None:
        """Loads what a configuration names, in place of what is loaded; takes its time.

        Args:
            config: of the model.
            beside: of a second one that answers the same; where both are adapters of one base it is loaded once.

        Raises:
            TunesmithError: it cannot be loaded; nothing is loaded then.
        """
        with self._lock:
            self._drop()
            self._voices = self._opened(config, beside)
        _logger.info("%s: loaded%s", self.name, ", one base" if self.shares_base else "")

    def _opened(self, config: RunConfig, beside: RunConfig | None) -> tuple[_Voice, ...]:
        together = self._over_one_base(config, beside) if beside else ()
        if together:
            return together
        first = _voice_of(config, self._opening(config))
        if beside is None:
            return (first,)
        try:
            return first, _voice_of(beside, self._opening(beside))
        except BaseException:
            first.close()
            raise

    def _over_one_base(self, config: RunConfig, beside: RunConfig) -> tuple[_Voice, ...]:
        """Both models over one base; none where that cannot be."""
        from tunesmith.models.load import base_folder

        adapters = find_separable(config, beside)
        if adapters is None:
            return ()
        opened = self._opening(config.replace(adapter_name_or_path=[]))
        try:
            for name, folder in adapters.items():
                if opened.model is not None:
                    check_configured({name: folder}, base_folder(opened.model), force=config.force_base)
                opened.engine.add_adapter(name, folder)
        except ModelError as reason:
            _logger.info("%s. Each model is loaded with a base of its own", reason)
            del opened
            _give_memory_back()
            return ()
        first = _voice_of(config, opened)
        return tuple(
            replace(
                first,
                name=_name_of(one),
                adapter=next(iter(one.adapter_name_or_path), None),
                defaults=_sampling_of(one),
            )
            for one in (config, beside)
        )

    def unload(self) -> None:
        """Lets the model go; answers under way end."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if not self._voices:
            return
        name, gone, self._voices = self.name, self._voices, ()
        for voice in gone:
            voice.close()
        del gone, voice
        _give_memory_back()
        _logger.info("%s is unloaded", name)

    async def answer(
        self,
        page: Hashable,
        conversation: Conversation,
        sampling: SamplingParams,
        thinking: bool | None = None,
        *,
        place: int = 0,
    ) -> AsyncIterator[Answer]:
        """Yields the answer as it grows; leaving the iterator ends the work.

        Args:
            page: who asks; `stop` takes the same.
            conversation: ends with what is to be answered.
            sampling: how tokens are chosen.
            thinking: whether the model is to think; None: as the configuration says.
            place: of the model that answers, where two are loaded.

        Raises:
            TunesmithError: nothing is loaded, the conversation cannot be written, or it does not fit.
        """
        if not self._voices:
            if self._lock.locked():
                raise ModelError("the model is being loaded; send it again when it is there")
            raise ModelError("no model is loaded; press Load first")
        loaded = self._voices[place]
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
                if loaded in self._voices:
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


def find_separable(config: RunConfig, beside: RunConfig) -> dict[str, Path] | None:
    """Folders of the adapters of two models that are one base with at most one adapter each; None for others."""
    alone = [_without(one, "adapter_name_or_path", "seed", *_DRAWING) for one in (config, beside)]
    is_ours = config.infer_backend == "huggingface"
    if not is_ours or alone[0] != alone[1] or any(len(one.adapter_name_or_path) > 1 for one in (config, beside)):
        return None
    found = [find_configured(one) for one in (config, beside)]
    return found[0] | found[1] if all(map(can_stay_apart, found)) else None


def _without(config: RunConfig, *names: str) -> dict[str, object]:
    return {name: value for name, value in config.to_dict().items() if name not in names}


def _voice_of(config: RunConfig, opened: OpenModel) -> _Voice:
    return _Voice(
        name=_name_of(config),
        runner=EngineRunner(opened.engine),
        dialect=ModelDialect(opened.form),
        adapter=opened.adapter,
        defaults=_sampling_of(config),
        hides_special=config.skip_special_tokens,
    )


def _sampling_of(config: RunConfig) -> SamplingParams:
    return SamplingParams.from_config(config, seed=config.seed if "seed" in config.explicit else None)


def _name_of(config: RunConfig) -> str:
    return " + ".join([config.model_name_or_path or "", *config.adapter_name_or_path])


def _give_memory_back() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
