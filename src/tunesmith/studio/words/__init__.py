"""The texts of the pages in English and Chinese, side by side: one YAML file a tab, `key: [English, Chinese]`."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

LANGUAGES = {"en": "English", "zh": "中文"}
"""Language -> its name for itself."""


@cache
def table() -> dict[str, tuple[str, ...]]:
    """Key -> its text in each language, in the order of `LANGUAGES`."""
    found: dict[str, tuple[str, ...]] = {}
    files = (file for file in resources.files(__name__).iterdir() if file.name.endswith(".yaml"))
    for file in sorted(files, key=lambda file: file.name):
        for key, texts in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            if key in found:
                raise ValueError(f"{file.name}: {key} is in another file, too")
            found[key] = tuple(str(text) for text in texts)
    return found


def say(key: str, language: str = "en", **facts: object) -> str:
    """A text of the page.

    Args:
        key: of the table.
        language: `en` or `zh`.
        **facts: what stands in braces in the text.
    """
    text = table()[key][list(LANGUAGES).index(language) if language in LANGUAGES else 0]
    return text.format(**facts) if facts else text
