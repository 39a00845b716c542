"""From a configuration to a service: tokenizer, template, model, engine. The HTTP side never comes here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.log import get_logger
from tunesmith.inference.chat import ChatFormat, decode, render_settings
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.runner import EngineRunner
from tunesmith.models.hub import resolve_adapter
from tunesmith.models.live_adapter import obstacle, read_settings
from tunesmith.models.load import base_folder, load_model
from tunesmith.models.provenance import check_provenance
from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = get_logger(__name__)


def load_service(config: RunConfig, settings: ServerSettings) -> Service:
    """Loads what the configuration names and puts it behind a service.

    One plain LoRA adapter is kept apart from its base, so that both answer, and others beside them. Several adapters in
    a row, or one that changes more than live adapters can, are put on the base for good: then the result is served
    alone.

    Raises:
        TunesmithError: the model, the adapter or the template cannot be used.
    """
    tokenizer = load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    live = _live_adapter(config)
    model = load_model(config.replace(adapter_name_or_path=[]) if live else config, tokenizer, trainable=False)
    ends = end_token_ids(template, tokenizer, getattr(model, "generation_config", None))
    folder = base_folder(model)
    engine = HuggingFaceEngine(
        model,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=settings.max_concurrent,
        decode=lambda ids: decode(tokenizer, ids, True),
        base_path=None if config.force_base else folder,
    )
    names = list(config.adapter_name_or_path)
    if live:
        check_provenance(live, folder, force=config.force_base, below=[])
        engine.add_adapter(names[-1], live)
    elif names:
        _logger.info("the model is served with its adapters on it; others cannot be loaded beside it")
    return Service(
        runner=EngineRunner(engine, max_queue=settings.max_queue),
        dialect=Dialect(ChatFormat(template, tokenizer, render_settings(config), ends)),
        defaults=SamplingParams.from_config(config, seed=config.seed if "seed" in config.explicit else None),
        names=ModelNames(
            config.model_name_or_path or "", adapters=names, is_live=live is not None, alias=settings.model_name
        ),
        settings=settings,
        context=engine.context,
    )


def _live_adapter(config: RunConfig) -> Path | None:
    """The folder of the configured adapter, if it is a single one that can stay apart from the base."""
    if len(config.adapter_name_or_path) != 1:
        return None
    path = resolve_adapter(config.adapter_name_or_path[0], cache_dir=config.cache_dir, token=config.hf_hub_token)
    return path if obstacle(read_settings(path)) is None else None
