"""Exports as the page asks for them, and what proves them. No Gradio here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.recipes.export import REPORT_FILE
from tunesmith.recipes.jobs import EXPORTING
from tunesmith.studio.check_shown import facts_of
from tunesmith.studio.choices import said
from tunesmith.studio.form import Said, tab_config
from tunesmith.studio.markup import note, page_part, table, tag
from tunesmith.studio.words import say
from tunesmith.studio.workspace import Workspace

FIELDS = ("export_dir", "export_size", "export_device", "infer_dtype", "overwrite_export")
_NOT_TOLD = ("max_logit_difference", "allowed_difference", "prompts", "bytes", "dtype")
_BYTES_OF_MB = 1e6


def export_config(
    workspace: Workspace, model: Mapping[str, Any], fields: Mapping[str, Any], more: Said | None = None
) -> RunConfig:
    """What is started.

    Args:
        workspace: guards paths.
        model: keys of the model.
        fields: of the form, by key; what is at its default is left out.
        more: what was set under Advanced.

    Raises:
        TunesmithError: a path is outside, or the configuration cannot be used.
    """
    given = {name: value for name, value in said(fields).items() if value != KEYS[name].default}
    return tab_config(workspace, "export", {**model, **given}, more)


def target_of(run: Path) -> Path:
    """The folder that an export's run directory stands beside."""
    return run.with_name(run.name.removesuffix(EXPORTING))


def report_page(run: Path, language: str = "en") -> str:
    """What was proven of an export; empty where there is none.

    Args:
        run: directory of the run.
        language: of the words.
    """
    target = target_of(run)
    try:
        found: dict[str, Any] = json.loads((target / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    drift, allowed = found["max_logit_difference"], found["allowed_difference"]
    facts = [
        (f"{drift:.2g}", say("export.drift", language)),
        (f"{allowed:.2g}", say("export.allowed", language)),
        (f"{found['prompts']}", say("export.prompts", language)),
        (f"{found['bytes'] / _BYTES_OF_MB:,.0f} MB", say("export.size", language)),
        (found["dtype"], say("export.dtype", language)),
    ]
    parts = [tag("h3", say("export.proven", language)), note(say("export.told", language, folder=target), "good")]
    if found.get("effect_below_rounding"):
        parts.append(note(say("export.below_rounding", language), "warn"))
    rest = [(name, _told(value)) for name, value in found.items() if name not in _NOT_TOLD]
    return page_part(*parts, facts_of(facts), table(("", ""), rest))


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
