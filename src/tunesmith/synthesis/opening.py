"""From a configuration to an asker with its journal: an endpoint or a local model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.config.making_rules import chosen_generator
from tunesmith.core.log import get_logger
from tunesmith.synthesis.calls import Asker
from tunesmith.synthesis.cost import Meter
from tunesmith.synthesis.counting import TokenCounter
from tunesmith.synthesis.endpoint import Address, Endpoint
from tunesmith.synthesis.journal import FILE, Journal
from tunesmith.synthesis.pool import Crew
from tunesmith.synthesis.retrying import Gate

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = get_logger(__name__)


def is_local(config: RunConfig) -> bool:
    """Whether a model of our engine writes."""
    return chosen_generator(config) == "local"


def model_name(config: RunConfig) -> str:
    """What calls carry as their model."""
    return (config.model_name_or_path if is_local(config) else config.generator_model) or ""


def make_meter(config: RunConfig, counter: TokenCounter) -> Meter:
    """What counts tokens and money; a local model costs none."""
    if is_local(config):
        return Meter(counter)
    return Meter(counter, config.price_prompt, config.price_completion, config.max_cost)


def open_journal(config: RunConfig, folder: Path, meter: Meter, gate: Gate, crew: Crew) -> Journal:
    """The generator, with the answers that are in `folder` already.

    Raises:
        TunesmithError: a local model cannot be loaded.
    """
    asker: Asker
    if is_local(config):
        from tunesmith.synthesis.local import open_local

        asker = open_local(config)
    else:
        address = Address(
            config.base_url or "", config.api_key, config.request_timeout, config.max_retries, config.retry_wait
        )
        is_proven = (folder / FILE).exists()
        asker = Endpoint(address, meter.counter, gate, config.concurrency, is_proven=is_proven)
    journal = Journal(folder / FILE, asker, meter, crew.check)
    _logger.info("generator: %s at %s", model_name(config), "this machine" if is_local(config) else config.base_url)
    if meter.total.calls:
        _logger.info(
            "%d answers of earlier runs are in %s and are not asked for again", meter.total.calls, journal.path
        )
    if journal.interrupted:
        _logger.info("%d calls were under way when a run was killed; they are asked again", journal.interrupted)
    return journal
