"""From a configuration to an engine that answers, with the messages' side of it: once, for chat, API and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.inference.chat import ChatFormat, decode, render_settings
from tunesmith.inference.engine import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to answer.

    Attributes:
        engine: token ids in and out.
        form: messages to ids and back, end tokens.
        adapter: what requests name to get the configured model; None: it is what the engine was loaded with.
        model: the weights in memory.
    """

    engine: Engine
    form: ChatFormat
    adapter: str | None = None
    model: Any = None


def open_model(
    config: RunConfig,
    *,
    batch_size: int,
    keep_apart: bool = False,
    model: Any = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> OpenModel:
    """Loads what a configuration names.

    Args:
        config: model, adapter, template, dtype and engine keys.
        batch_size: answers under way together.
        keep_apart: a single plain LoRA adapter stays apart from the base, so that both answer, and others beside them.
            Several in a row, or one that changes more than live adapters can, are on the base for good.
        model: one that is loaded already; then nothing is read but the tokenizer.
        tokenizer: goes with `model`.

    Raises:
        TunesmithError: the model, the adapter or the template cannot be used.
    """
    from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer

    tokenizer = tokenizer or load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    engine, adapter = _open(config, tokenizer, batch_size, keep_apart, model)
    ends = end_token_ids(template, tokenizer, getattr(engine.model, "generation_config", None))
    return OpenModel(engine, ChatFormat(template, tokenizer, render_settings(config), ends), adapter, engine.model)


def _open(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int, keep_apart: bool, model: Any
) -> tuple[Any, str | None]:
    """The transformers engine and the name of its live adapter."""
    from tunesmith.inference.hf import HuggingFaceEngine
    from tunesmith.models.adapters import load_adapter
    from tunesmith.models.load import base_folder, load_model
    from tunesmith.models.packed import pack
    from tunesmith.models.provenance import check_provenance

    def engine_of(model: Any) -> HuggingFaceEngine:
        return HuggingFaceEngine(
            model,
            pad_token_id=tokenizer.pad_token_id,
            batch_size=batch_size,
            decode=lambda ids: decode(tokenizer, ids, True),
            base_path=None if config.force_base else base_folder(model),
        )

    if model is not None:  # may be trained again: its weights are not packed
        return engine_of(model), None
    live = _live_adapter(config) if keep_apart else None
    if live is None:
        model = load_model(config, tokenizer, trainable=False)
        pack(model)
        return engine_of(model), None
    base = load_model(config.replace(adapter_name_or_path=[]), tokenizer, trainable=False)
    pack(base)
    engine, name = engine_of(base), config.adapter_name_or_path[0]
    check_provenance(live, base_folder(base), force=config.force_base, below=[])
    try:
        engine.add_adapter(name, live)
    except ModelError as reason:
        logger.info("%s. It is served alone", reason)
        return engine_of(load_adapter(base, live).to(base.device).eval()), None
    return engine, name


def _live_adapter(config: RunConfig) -> Path | None:
    """The folder of the configured adapter, if it is a single one that can stay apart from the base."""
    from tunesmith.models import rope
    from tunesmith.models.hub import resolve_adapter
    from tunesmith.models.live_adapter import obstacle, read_settings

    if len(config.adapter_name_or_path) != 1:
        return None
    path = resolve_adapter(config.adapter_name_or_path[0], cache_dir=config.cache_dir, token=config.hf_hub_token)
    if rope.kept_with(path) is not None:  # the base must be loaded as the adapter was trained
        return None
    return path if obstacle(read_settings(path)) is None else None
