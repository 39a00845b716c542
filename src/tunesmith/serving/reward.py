"""A reward model behind the server: texts in, one score each out. Nothing is generated here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.core.errors import ModelError
from tunesmith.inference.chat import ChatFormat, render_settings
from tunesmith.inference.engine import Delta, EngineStats, GenerationRequest, SamplingParams
from tunesmith.inference.runner import EngineRunner
from tunesmith.inference.stepped import SteppedEngine
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

ALIAS = "model"
"""What the reward clients of LLaMA-Factory call whatever is served."""


class Scores(Protocol):
    """Gives one number for each sequence of token ids."""

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[float]: ...


class RewardEngine(SteppedEngine):
    """An engine that answers nothing and scores sequences.

    Args:
        score_of: scores.
        context: longest sequence in tokens; None: unknown.
    """

    def __init__(self, score_of: Scores, context: int | None) -> None:
        self.context = context
        self._score_of = score_of
        self._tokens = 0

    def scores(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """What the model makes of the last token of each."""
        self._tokens += sum(map(len, sequences))
        return self._score_of(sequences)

    def submit(self, request: GenerationRequest) -> int:
        """Refused.

        Raises:
            ModelError: always.
        """
        raise ModelError("a reward model is served here: it gives scores (POST /v1/score/evaluation) and no answers")

    def cancel(self, request_id: int) -> None:
        """There is nothing to end."""

    def step(self) -> list[Delta]:
        """There is nothing to do."""
        return []

    def stats(self) -> EngineStats:
        """Counters, now."""
        return EngineStats(prompt_tokens=self._tokens)


def load_reward_service(config: RunConfig, settings: ServerSettings) -> Service:
    """Loads a reward model (`stage: rm`) and puts it behind a service.

    Raises:
        TunesmithError: the model or the adapter cannot be used, or there is no value head.
    """
    from tunesmith.models.load import load_model
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer
    from tunesmith.models.value_head import score_sequences

    tokenizer = load_tokenizer(config)
    model: Any = load_model(config, tokenizer, trainable=False)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    engine = RewardEngine(lambda sequences: score_sequences(model, sequences), context)
    form = ChatFormat(load_template_for(config, tokenizer), tokenizer, render_settings(config))
    return reward_service(engine, form, config, settings)


def reward_service(engine: RewardEngine, form: ChatFormat, config: RunConfig, settings: ServerSettings) -> Service:
    """A service over a reward engine."""
    name, adapters = config.model_name_or_path or "", config.adapter_name_or_path
    return Service(
        runner=EngineRunner(engine, max_queue=settings.max_queue),
        dialect=Dialect(form),
        defaults=SamplingParams(),
        names=ModelNames(name, adapters=dict.fromkeys(adapters[-1:]), alias=settings.model_name or ALIAS),
        settings=settings,
        context=engine.context,
        is_reward_model=True,
    )
