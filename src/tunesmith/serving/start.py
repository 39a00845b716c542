"""From a configuration to a service. The one place that opens a model; the HTTP side never comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.log import get_logger
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.opening import open_model
from tunesmith.inference.runner import EngineRunner
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = get_logger(__name__)


def load_service(config: RunConfig, settings: ServerSettings) -> Service:
    """Loads what the configuration names and puts it behind a service.

    Raises:
        TunesmithError: the model, the adapter or the template cannot be used.
    """
    opened = open_model(config, batch_size=settings.max_concurrent, keep_apart=True)
    if config.adapter_name_or_path and opened.adapter is None:
        _logger.info("the model is served with its adapters on it; others cannot be loaded beside it")
    return Service(
        runner=EngineRunner(opened.engine, max_queue=settings.max_queue),
        dialect=Dialect(opened.form),
        defaults=SamplingParams.from_config(config, seed=config.seed if "seed" in config.explicit else None),
        names=ModelNames(
            config.model_name_or_path or "",
            default=opened.adapter,
            adapters=opened.adapters,
            alias=settings.model_name,
        ),
        settings=settings,
        context=opened.engine.context,
    )
