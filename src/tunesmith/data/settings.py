"""What a caller may choose about a rendering, and the two token names that it needs; plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from tunesmith.data.template import Template

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

LLAMAFACTORY = "llamafactory"
"""Value of `template_compat`."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Choices of one run or request.

    Attributes:
        enable_thinking: True: answers may hold thoughts; False: thoughts are cut out; None: thoughts stay where they
            are, and an answer without one gets the empty thought before it, without loss.
        preserve_thinking: thoughts of earlier answers stay in the prompt.
        mask_history: only the last answer carries loss.
        train_on_prompt: everything carries loss.
        default_system: instead of the template's default system text; None: the template's.
        tool_format: instead of the template's; None: the template's.
        compat: write the bytes of LLaMA-Factory also where they are malformed (unclosed tool calls, empty system part).
        today: date written into prompts that name one; None: the day of the call.
    """

    enable_thinking: bool | None = True
    preserve_thinking: bool = False
    mask_history: bool = False
    train_on_prompt: bool = False
    default_system: str | None = None
    tool_format: str | None = None
    compat: bool = False
    today: date | None = None


def settings_of(config: RunConfig) -> RenderSettings:
    """The settings of a run, for training, prompts and export alike."""
    return RenderSettings(
        enable_thinking=config.enable_thinking,
        preserve_thinking=config.preserve_thinking,
        mask_history=config.mask_history,
        train_on_prompt=config.train_on_prompt,
        default_system=config.default_system,
        tool_format=config.tool_format,
        compat=is_compat(config),
    )


def is_compat(config: RunConfig) -> bool:
    """Whether templates are written as LLaMA-Factory writes them."""
    return config.template_compat == LLAMAFACTORY


@dataclass(frozen=True, slots=True)
class TokenNames:
    """Names of the tokenizer's bos and eos, after `replace_eos`; None where it has none."""

    bos: str | None
    eos: str | None


def token_names(tokenizer: Any, template: Any = None) -> TokenNames:
    """The names as the template sees them: `replace_eos` makes its first stop word the eos."""
    eos = tokenizer.eos_token
    if isinstance(template, Template) and template.replace_eos and template.stop_words:
        eos = template.stop_words[0]
    return TokenNames(tokenizer.bos_token or None, eos or None)
