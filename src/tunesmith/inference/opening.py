"""From a configuration to an engine that answers, with the messages' side of it: once, for chat, API and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError
from tunesmith.core.lazy import lookup
from tunesmith.core.log import get_logger
from tunesmith.inference.chat import ChatFormat, decode, render_settings
from tunesmith.inference.engine import Engine
from tunesmith.inference.serving_adapters import (
    add_configured,
    can_stay_apart,
    check_configured,
    find_configured,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.drafting import Drafter

logger = get_logger(__name__)

OPENERS = {
    "huggingface": "tunesmith.inference.opening:open_huggingface",
    "vllm": "tunesmith.inference.vllm:open_vllm",
    "sglang": "tunesmith.inference.sglang:open_sglang",
}
"""Values of `infer_backend`."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What an engine's opener gives.

    Attributes:
        engine: token ids in and out.
        generation_config: of the base model, None where it has none.
        adapter: what requests name to get the configured model; None: it is what the engine was loaded with.
        adapters: names in `adapter_name_or_path` to the engine's; None as above.
        model: the weights in memory, where they are in this process.
    """

    engine: Engine
    generation_config: Any = None
    adapter: str | None = None
    adapters: Mapping[str, str | None] = field(default_factory=dict)
    model: Any = None


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to answer.

    Attributes:
        engine: token ids in and out.
        form: messages to ids and back, end tokens.
        adapter: what requests name to get the configured model; None: it is what the engine was loaded with.
        adapters: names in `adapter_name_or_path` to the engine's, each alone over the base, or with those that it was
            trained on top of; where they are on the base for good, the last name stands for all.
        model: the weights in memory, where they are in this process.
    """

    engine: Engine
    form: ChatFormat
    adapter: str | None = None
    adapters: Mapping[str, str | None] = field(default_factory=dict)
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
        keep_apart: the configured adapters stay apart from the base, so that all of them and the base answer, and
            others beside them; where they cannot, they are on the base for good.
        model: one that is loaded already; then nothing is read but the tokenizer.
        tokenizer: goes with `model`.

    Raises:
        TunesmithError: the model, the adapter or the template cannot be used.
    """
    from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer

    tokenizer = tokenizer or load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    if model is not None:
        opened = _huggingface(config, tokenizer, batch_size, model)
    else:
        opened = lookup(OPENERS, config.infer_backend)(config, tokenizer, batch_size, keep_apart)
    ends = end_token_ids(template, tokenizer, opened.generation_config)
    form = ChatFormat(template, tokenizer, render_settings(config), ends, opened.adapter)
    return OpenModel(opened.engine, form, opened.adapter, opened.adapters, opened.model)


def open_engine(config: RunConfig, tokenizer: PreTrainedTokenizerBase, *, batch_size: int) -> Opened:
    """An engine without the messages' side, for what reads plain text; adapters are on the model for good."""
    opened: Opened = lookup(OPENERS, config.infer_backend)(config, tokenizer, batch_size, False)
    return opened


def open_huggingface(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int, keep_apart: bool
) -> Opened:
    """The transformers engine; with `keep_apart` adapters are live where they can be."""
    if keep_apart and config.adapter_name_or_path:
        opened = _with_live_adapters(config, tokenizer, batch_size)
        if opened is not None:
            return opened
    names = config.adapter_name_or_path
    return _loaded(config, tokenizer, batch_size, {names[-1]: None} if names else {})


def _with_live_adapters(config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Opened | None:
    """The bare base with the configured adapters beside it; None where they cannot be."""
    from tunesmith.models.load import base_folder

    found = find_configured(config)
    if not can_stay_apart(found):
        return None
    opened = _loaded(config.replace(adapter_name_or_path=[]), tokenizer, batch_size, {})
    check_configured(found, base_folder(opened.model), force=config.force_base)
    try:
        adapter, adapters = add_configured(opened.engine, found)
    except ModelError as reason:
        logger.info("%s. The model is loaded again with its adapters on it, and served alone", reason)
        return None
    return Opened(opened.engine, opened.generation_config, adapter, adapters, opened.model)


def _loaded(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int, adapters: Mapping[str, str | None]
) -> Opened:
    from tunesmith.models.load import load_model
    from tunesmith.models.packed import pack

    model = load_model(config, tokenizer, trainable=False)
    pack(model)  # a model that was given may be trained again, and is not packed
    return _huggingface(config, tokenizer, batch_size, model, adapters)


def _huggingface(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    model: Any,
    adapters: Mapping[str, str | None] | None = None,
) -> Opened:
    from tunesmith.inference.hf import HuggingFaceEngine
    from tunesmith.models.load import base_folder

    engine = HuggingFaceEngine(
        model,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=batch_size,
        decode=lambda ids: decode(tokenizer, ids, True),
        base_path=None if config.force_base else base_folder(model),
        drafter=_drafter(config, tokenizer),
        keeps_values=config.use_kv_cache,
    )
    return Opened(engine, getattr(model, "generation_config", None), None, adapters or {}, model)


def _drafter(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Drafter | None:
    """Who guesses tokens ahead, if the configuration asks for it.

    Raises:
        ModelError: the assistant has other tokens, or cannot be loaded.
    """
    from tunesmith.inference.drafting import Assistant, PromptLookup

    if config.prompt_lookup_num_tokens:
        return PromptLookup(config.prompt_lookup_num_tokens, config.max_matching_ngram_size)
    if not config.assistant_model:
        return None
    from tunesmith.models.load import load_model
    from tunesmith.models.packed import pack
    from tunesmith.models.tokenizer import load_tokenizer

    smaller = config.replace(model_name_or_path=config.assistant_model, adapter_name_or_path=[])
    if load_tokenizer(smaller).get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"assistant_model: the tokens of {config.assistant_model} are not those of {config.model_name_or_path}, "
            "so it cannot guess them; name a smaller model of the same family"
        )
    model = load_model(smaller, tokenizer, trainable=False)
    pack(model)
    return Assistant(model, config.num_assistant_tokens)
