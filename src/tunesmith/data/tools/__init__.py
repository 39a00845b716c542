"""How a family writes tools and calls, and reads calls back; one table of names, one file a small group of formats."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tunesmith.core.errors import TemplateError
from tunesmith.core.lazy import lookup, nearest
from tunesmith.data.tools.base import Parsed, ToolFormat

__all__ = ["FORMATS", "Parsed", "ToolFormat", "format_of_jinja", "load_tool_format", "tool_format_names"]

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "default": "tunesmith.data.tools.lines:DEFAULT",
        "glm4": "tunesmith.data.tools.lines:GLM4",
        "phi4_mini": "tunesmith.data.tools.lines:PHI4_MINI",
        "llama3": "tunesmith.data.tools.bare_json:LLAMA3",
        "mistral": "tunesmith.data.tools.bare_json:MISTRAL",
        "qwen": "tunesmith.data.tools.tagged_json:QWEN",
        "ling": "tunesmith.data.tools.tagged_json:LING",
        "minimax1": "tunesmith.data.tools.tagged_json:MINIMAX1",
        "qwen3_5": "tunesmith.data.tools.tagged_arguments:QWEN3_5",
        "glm4_moe": "tunesmith.data.tools.tagged_arguments:GLM4_MOE",
        "minimax2": "tunesmith.data.tools.tagged_arguments:MINIMAX2",
        "seed_oss": "tunesmith.data.tools.tagged_arguments:SEED_OSS",
        "gemma4": "tunesmith.data.tools.calls:GEMMA4",
        "lfm2": "tunesmith.data.tools.calls:LFM2",
    }
)

_SIGNS = (
    ("<arg_key>", "glm4_moe"),
    ("<minimax:tool_call>", "minimax2"),
    ("<seed:tool_call>", "seed_oss"),
    ("<|tool_call_start|>", "lfm2"),
    ("<|tool_call>", "gemma4"),
    ("<function=", "qwen3_5"),
    ("<tool_calls>", "minimax1"),
    ("<tool_call>", "qwen"),
    ("[TOOL_CALLS]", "mistral"),
    ("'\"parameters\": '", "llama3"),
    ('"parameters": ', "llama3"),
)
"""What a chat template that writes calls holds -> the format that reads them; the first that is found counts."""


def format_of_jinja(text: str) -> str:
    """Name of the format that a tokenizer's chat template writes calls in; `default` where nothing tells."""
    return next((name for sign, name in _SIGNS if sign in text), "default")


def tool_format_names() -> tuple[str, ...]:
    """The values of `tool_format`."""
    return tuple(sorted(FORMATS))


def load_tool_format(name: str) -> ToolFormat:
    """The format of that name.

    Raises:
        TemplateError: nobody knows it.
    """
    if name not in FORMATS:
        near = nearest(name, FORMATS)
        hint = f"; did you mean {near!r}?" if near else f"; known: {', '.join(tool_format_names())}"
        raise TemplateError(f"tool_format: {name!r} is not known{hint}")
    found: ToolFormat = lookup(FORMATS, name)
    return found
