"""From a configuration to a service: tokenizer, template, model, engine. The HTTP side never comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.inference.chat import ChatFormat, decode, render_settings
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.runner import EngineRunner
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


def load_service(config: RunConfig, settings: ServerSettings) -> Service:
    """Loads what the configuration names and puts it behind a service."""
    tokenizer = load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    model = load_model(config, tokenizer, trainable=False)
    ends = end_token_ids(template, tokenizer, getattr(model, "generation_config", None))
    engine = HuggingFaceEngine(
        model,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=settings.max_concurrent,
        decode=lambda ids: decode(tokenizer, ids, True),
    )
    return Service(
        runner=EngineRunner(engine, max_queue=settings.max_queue),
        dialect=Dialect(ChatFormat(template, tokenizer, render_settings(config), ends)),
        defaults=SamplingParams.from_config(config, seed=config.seed if "seed" in config.explicit else None),
        names=ModelNames(config.model_name_or_path or "", alias=settings.model_name),
        settings=settings,
        context=engine.context,
    )
