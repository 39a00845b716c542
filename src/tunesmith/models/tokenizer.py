"""The tokenizer as a run uses it: the ids of tokenizer.json, the added tokens, the template's end token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tunesmith.core import log
from tunesmith.core.errors import ModelError, TemplateError
from tunesmith.data.auto_template import AutoTemplate
from tunesmith.data.guard import CONTENT_TOKENS
from tunesmith.data.stop import end_tokens
from tunesmith.data.template import Template
from tunesmith.models import hub
from tunesmith.models.template_choice import check_fit, choose_template

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

PROBE = "Hello, world!  12345 dollars.\n\nДобрый день 你好，世界 🙂 def f(x):\n\treturn x + 1"
_NO_EOS = "<|endoftext|>"
_logger = log.get_logger(__name__)


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `model_name_or_path`, with `add_tokens` and its kin added and the template's marks set.

    Added tokens come in this order: those that an adapter's folder brings, `add_tokens`, `add_special_tokens`,
    `new_special_tokens_config`; a token that is there already keeps its id. Padding is on the right.

    Raises:
        ModelError: the model or its tokenizer cannot be found or read.
        TemplateError: the template does not exist, or `auto` is asked for and the tokenizer has none.
    """
    resolved = hub.resolve_model(
        config.model_name_or_path or "",
        revision=config.model_revision,
        cache_dir=config.cache_dir,
        token=config.hf_hub_token,
    )
    tokenizer = read_tokenizer(
        resolved.path,
        trust_remote_code=config.trust_remote_code,
        use_fast=config.use_fast_tokenizer,
        split_special_tokens=config.split_special_tokens,
    )
    tokenizer.padding_side = "right"
    for name in config.adapter_name_or_path or ():
        _add_adapter_tokens(tokenizer, Path(name).expanduser())
    _add_tokens(tokenizer, config)
    apply_template(tokenizer, choose_template(config, tokenizer)[0])
    _check_vocabulary(tokenizer, resolved.path, config)
    return tokenizer


def read_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, use_fast: bool = True, split_special_tokens: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, guarded against a rebuilt backend.

    transformers rebuilds some tokenizers by their class name and can come to other ids than tokenizer.json says. The
    ids of a probe text are compared; where they differ, tokenizer.json is taken as it is, and that is said.
    """
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "split_special_tokens": split_special_tokens}
    if not use_fast:
        options["use_fast"] = False
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"no tokenizer could be read from {folder}: {error}") from error
    file = folder / "tokenizer.json"
    if not use_fast or not file.is_file():
        return tokenizer
    raw = Tokenizer.from_file(str(file))
    if _ids(tokenizer) == raw.encode(PROBE, add_special_tokens=False).ids:
        return tokenizer
    _logger.warning("%s gives other ids than tokenizer.json; tokenizer.json is used as it is", type(tokenizer).__name__)
    return _wrap(raw, tokenizer, split_special_tokens)


def _ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])


def _wrap(raw: Tokenizer, like: PreTrainedTokenizerBase, split_special_tokens: bool) -> PreTrainedTokenizerFast:
    """A tokenizer around `raw` with the special tokens and the chat template of `like`."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=like.model_max_length,
        split_special_tokens=split_special_tokens,
        clean_up_tokenization_spaces=False,
        **like.special_tokens_map,
    )
    wrapped.chat_template = like.chat_template
    if _ids(wrapped) != raw.encode(PROBE, add_special_tokens=False).ids:
        raise ModelError("tokenizer.json cannot be used as it is: its ids change when transformers wraps it")
    return wrapped


def _add_adapter_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Adds the tokens that the tokenizer saved beside an adapter has more than the base's, under the same ids."""
    if not (folder / "tokenizer.json").is_file():
        return
    trained = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if trained.get_vocab_size() <= len(tokenizer):
        return
    added = {i: token for i, token in trained.get_added_tokens_decoder().items() if i >= len(tokenizer)}
    for token_id, token in sorted(added.items()):
        tokenizer.add_tokens([token], special_tokens=bool(token.special))
        if tokenizer.convert_tokens_to_ids(token.content) != token_id:
            raise ModelError(
                f"{folder}: its tokenizer knows {token.content!r} as id {token_id}, the base model's does not; "
                "was the adapter trained on another base?"
            )
    noted = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get(CONTENT_TOKENS)
    _allow_in_rows(tokenizer, noted or [])
    _logger.info("%d added tokens taken over from %s", len(added), folder)


def _add_tokens(tokenizer: PreTrainedTokenizerBase, config: RunConfig) -> None:
    plain, special = list(config.add_tokens or ()), list(config.add_special_tokens or ())
    special += list(new_special_tokens(config.new_special_tokens_config))
    before = len(tokenizer)
    tokenizer.add_tokens(plain)
    if special:
        _add_special(tokenizer, special)
        _allow_in_rows(tokenizer, special)
    if len(tokenizer) > before:
        _logger.info("%d tokens added to the vocabulary (%d in all)", len(tokenizer) - before, len(tokenizer))


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path, config: RunConfig) -> None:
    """Refuses ids that the model has no embedding row for, unless rows are to be added."""
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    rows = fields.get("vocab_size") or fields.get("text_config", {}).get("vocab_size")
    wants_rows = (
        config.resize_vocab or config.add_tokens or config.add_special_tokens or config.new_special_tokens_config
    )
    if wants_rows or not rows or len(tokenizer) <= rows or _brought_by_adapter(config):
        return
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in range(rows, min(len(tokenizer), rows + 3)))
    raise TemplateError(
        f"template: {config.template} needs {names}, for which this model has no embedding ({rows} rows). "
        "Choose the template that fits the model (template: auto takes its own), or set resize_vocab: true"
    )


def _brought_by_adapter(config: RunConfig) -> bool:
    return any((Path(name).expanduser() / "tokenizer.json").is_file() for name in config.adapter_name_or_path or ())


def _allow_in_rows(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> None:
    """Notes tokens that were added to be written in rows; the note is saved with the tokenizer."""
    known = list(tokenizer.init_kwargs.get(CONTENT_TOKENS) or ())
    tokenizer.init_kwargs[CONTENT_TOKENS] = list(dict.fromkeys([*known, *names]))


def _add_special(tokenizer: PreTrainedTokenizerBase, names: list[str]) -> None:
    tokenizer.add_tokens(names, special_tokens=True)


def new_special_tokens(path: str | None) -> dict[str, str]:
    """Reads `new_special_tokens_config`: a YAML file that maps each new special token to a text that describes it.

    Raises:
        ModelError: the file is not there or holds something else.
    """
    if not path:
        return {}
    where = "new_special_tokens_config"
    try:
        read = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ModelError(f"{where}: {path} cannot be read: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(text, str) for text in [*read, *read.values()]):
        raise ModelError(f'{where}: {path} must map tokens to texts, such as "<think>": "begin of a thought"')
    return read


def load_template_for(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Template | AutoTemplate:
    """The template that a run renders with, held against the tokenizer's own chat template; see `template_choice.py`.

    Raises:
        TemplateError: it does not exist, `auto` has nothing to go by, or it is another family's.
    """
    template, said = choose_template(config, tokenizer)
    if said:
        _logger.info(said)
    check_fit(template, config, tokenizer)
    return template


def apply_template(tokenizer: PreTrainedTokenizerBase, template: Template | AutoTemplate) -> None:
    """Sets the tokenizer's end and pad tokens as the template wants them.

    `replace_eos` makes the first stop word the eos; the other stop words become special tokens. A tokenizer without eos
    gets `<|endoftext|>`, one without pad its eos, by id: labels are masked by position, never by the pad's id.
    """
    stops = list(template.stop_words)
    if template.replace_eos and stops:
        first = stops.pop(0)
        if tokenizer.eos_token != first:
            _add_special(tokenizer, [first])
            tokenizer.eos_token = first
    if tokenizer.eos_token_id is None:
        _add_special(tokenizer, [_NO_EOS])
        tokenizer.eos_token = _NO_EOS
        _logger.warning("the tokenizer has no end token; %s is used", _NO_EOS)
    if stops:
        _add_special(tokenizer, stops)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def end_token_ids(
    template: Template | AutoTemplate,
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None = None,
) -> tuple[int, ...]:
    """Every id that ends an answer: the template's end tokens first, then the tokenizer's and the model's eos."""
    ids: list[int] = list(end_tokens(template, tokenizer))
    if tokenizer.eos_token_id is not None:
        ids.append(int(tokenizer.eos_token_id))
    eos = getattr(generation_config, "eos_token_id", None)
    ids += [eos] if isinstance(eos, int) else list(eos or ())
    return tuple(dict.fromkeys(int(i) for i in ids))
