"""Which template a run renders with: the named one, the table of known models, the tokenizer's own; and if it fits."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import log
from tunesmith.core.errors import TemplateError
from tunesmith.data.auto_template import AutoTemplate, auto_template
from tunesmith.data.settings import is_compat, settings_of
from tunesmith.data.template import Template, is_family, load_template
from tunesmith.models.known import known_template
from tunesmith.models.template_check import PLAIN_TEXT, Difference, differences, is_same_frame

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = log.get_logger(__name__)


def choose_template(config: RunConfig, tokenizer: Any) -> tuple[Template | AutoTemplate, str | None]:
    """The template, and one sentence when it was not named.

    Without `template` the table of known models names one; where the tokenizer's own chat template writes other tokens
    than that (the table knows families, not versions), or the model is not in the table, `auto`; else `default`.

    Raises:
        TemplateError: the name does not exist, or `auto` has nothing to go by.
    """
    if config.template == "auto":
        return auto_template(tokenizer), None
    if config.template:
        return load_template(config.template, is_compat(config)), None
    has_own = bool(tokenizer.chat_template)
    known = known_template(model_names(config))
    if known is not None:
        name, model = known
        template = load_template(name, is_compat(config))
        if not has_own or is_compat(config) or not _differs(template, config, tokenizer):
            return template, f"template: not given; {model} is known, {name} is used"
        said = f"template: not given; the tokenizer's own chat template is used (auto): {name} would write other tokens"
        return auto_template(tokenizer), said
    if has_own:
        return auto_template(tokenizer), "template: not given, the tokenizer's own chat template is used (auto)"
    return load_template(
        "default", is_compat(config)
    ), "template: not given and the tokenizer has none: default is used"


def model_names(config: RunConfig) -> list[str | None]:
    """Names that a model goes by: the configured one, and the one in its config.json."""
    name = config.model_name_or_path
    names: list[str | None] = [name]
    try:
        fields = json.loads((Path(name or "").expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return names
    given = fields.get("_name_or_path") if isinstance(fields, dict) else None
    return [*names, given if isinstance(given, str) else None]


def _differs(template: Template, config: RunConfig, tokenizer: Any) -> bool:
    try:
        return bool(differences(template, tokenizer, settings_of(config), with_default=True))
    except TemplateError:  # a token that this tokenizer does not have
        return True


def check_fit(template: Template | AutoTemplate, config: RunConfig, tokenizer: Any) -> None:
    """Holds a named template against the tokenizer's own chat template, and says where they part.

    Raises:
        TemplateError: they are of different families, and `force_template` is not set.
    """
    if isinstance(template, AutoTemplate):
        return
    if config.template and tokenizer.chat_template:
        _compare(template, config, tokenizer)
    if template.differs:
        _say_official(template.name, ", ".join(template.differs))


def _compare(template: Template, config: RunConfig, tokenizer: Any) -> None:
    settings = settings_of(config)
    found = differences(template, tokenizer, settings)
    if is_compat(config) and found:
        found = differences(load_template(template.name), tokenizer, settings) and found
    if not found:
        if not is_compat(config) and config.default_system is None:
            _compare_default(template, config, tokenizer)
        return
    text = "\n".join(found[0].lines(tokenizer, template.name))
    known = known_template(model_names(config))
    is_own = known is not None and (known[0] == template.name or is_family(known[0], template.name))
    if template.name in PLAIN_TEXT:
        _logger.warning(
            "template: %s is no chat format of this model, which has one of its own (template: auto takes it)",
            template.name,
        )
    elif is_own or config.force_template or is_same_frame(found[0], tokenizer):
        _logger.warning(
            "template: %s writes other tokens than the model's own chat template (%s); template: auto takes that\n%s",
            template.name,
            found[0].probe,
            text,
        )
    else:
        raise _mismatch(template.name, known[0] if known else "", found[0], text)


def _compare_default(template: Template, config: RunConfig, tokenizer: Any) -> None:
    """Says where only the system text differs that stands in for none."""
    if template.name not in PLAIN_TEXT and differences(template, tokenizer, settings_of(config), with_default=True):
        _logger.info(
            "template: %s writes another default system text than the model's chat template; default_system sets it",
            template.name,
        )


def _mismatch(name: str, known: str, difference: Difference, text: str) -> TemplateError:
    fix = f"template: {known} is this model's" if known else "template: auto takes the model's own"
    return TemplateError(
        f"template: {name} is not the format of this model (probe: {difference.probe})\n{text}\n"
        f"  {fix}; force_template: true trains with {name} all the same"
    )


@functools.cache
def _say_official(name: str, fields: str) -> None:
    """Once a run."""
    _logger.info(
        "template: %s is the model's official form, which LLaMA-Factory writes otherwise (%s); for adapters trained "
        "there set template_compat: llamafactory",
        name,
        fields,
    )
