"""The table of known models: which template a model was trained with, told by its name. No files of models are read."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources

_SIZE = r"\d+([._]\d+)?[bm](-a\d+(\.\d+)?[bm])?"
_ENDING = r"([-._](hf|awq|gptq|gguf|mlx|bnb|int[48]|fp8|bf16|fp16|[48]-?bits?|i?q\d)[\w.-]*)?"


def known_template(names: Iterable[str | None]) -> tuple[str, str] | None:
    """The template of the first name that is in the table.

    Args:
        names: paths or repository names of one model, the surest first; empty ones are passed over.

    Returns:
        (template, the name that was found), None where no name is known.
    """
    for name in names:
        last = (name or "").rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        for pattern, template in _table() if last else ():
            if pattern.fullmatch(last.lower()):
                return template, last
    return None


@functools.cache
def _table() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns, whole names before those with a size in them."""
    import yaml

    text = resources.files("tunesmith.models").joinpath("known_models.yaml").read_text("utf-8")
    pairs = [(pattern, template) for template, patterns in yaml.safe_load(text).items() for pattern in patterns]
    pairs.sort(key=lambda pair: ("#" in pair[0], -len(pair[0])))
    return tuple((_compiled(pattern), template) for pattern, template in pairs)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_SIZE.join(map(re.escape, pattern.split("#"))) + _ENDING)
