"""`tunesmith template`: templates listed and shown, and a model folder held against the one it was trained with."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from tunesmith.core.errors import ModelError, TemplateError
from tunesmith.core.types import Conversation, Message, Segment

_MARKS = ("⟦", "⟧")
"""Around what is learnt."""
_CHAT = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "Name a fruit."),
        Message("assistant", "Apple."),
        Message("user", "Another?"),
        Message("assistant", "Pear."),
    )
)
Row = tuple[str, bool, str]
"""What was checked, whether it agrees, and what was found."""


def list_names() -> None:
    """Prints every template with what sets it apart."""
    from tunesmith.data.template import load_template, template_names

    for name in template_names():
        template = load_template(name)
        notes: list[str] = [template.kind] if template.kind != "plain" else []
        notes += [f"tools: {template.tool_format}"] if template.tool_format != "default" else []
        notes += [f"official: {', '.join(template.differs)}"] if template.differs else []
        _say(f"{name:<26}{'; '.join(notes)}".rstrip())


def show(name: str, *, compat: bool = False) -> None:
    """Prints a conversation as the template writes it.

    Raises:
        TemplateError: nobody knows the name.
    """
    from tunesmith.data.render import RenderSettings, TokenNames, render
    from tunesmith.data.template import load_template

    template = load_template(name, compat)
    eos = template.stop_words[0] if template.replace_eos and template.stop_words else "{eos}"
    segments = render(template, _CHAT, RenderSettings(compat=compat), TokenNames("{bos}", eos))
    _say(_marked(segments))
    _say(f"\nend tokens: {', '.join(dict.fromkeys([eos, *template.stop_words]))}; tools: {template.tool_format}")
    if template.default_system:
        _say(f"default system text: {template.default_system}")
    if template.differs:
        _say(f"LLaMA-Factory writes otherwise: {', '.join(template.differs)} (template_compat: llamafactory)")


def _marked(segments: list[Segment]) -> str:
    parts = [
        (trained, "".join(part.text for part in run)) for trained, run in groupby(segments, lambda part: part.trained)
    ]
    return "".join(text.join(_MARKS) if trained else text for trained, text in parts)


def verify(folder: str, name: str | None = None) -> int:
    """Prints a table of what was checked.

    Args:
        folder: a model's folder.
        name: the template; default: the one in export_report.json, the one of a known model, else auto.

    Returns:
        0; 2 where something disagrees.

    Raises:
        ModelError: the folder has no tokenizer.
        TemplateError: nobody knows the name.
    """
    from tunesmith.config.load import load_config
    from tunesmith.models.template_choice import choose_template
    from tunesmith.models.tokenizer import read_tokenizer

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ModelError(f"{folder} is no folder")
    report = _read(path / "export_report.json")
    name = name or report.get("template")
    words = [f"model_name_or_path={path}", *([f"template={name}"] if name else [])]
    words += ["template_compat=llamafactory"] if report.get("template_compat") else []
    config = load_config(words, "chat")
    tokenizer = read_tokenizer(path)
    template, _ = choose_template(config, tokenizer)
    rows = [*_text_rows(template, config, tokenizer), *_end_rows(template, tokenizer, path)]
    width = max(len(row[0]) for row in rows)
    _say(f"{path}, template {template.name}")
    for label, agrees, found in rows:
        _say(f"  {'ok  ' if agrees else 'DIFF'}  {label:<{width}}  {found}")
    return 0 if all(agrees for _, agrees, _ in rows) else 2


def _text_rows(template: Any, config: Any, tokenizer: Any) -> list[Row]:
    """Prompts of the template and of the folder's own chat template."""
    from tunesmith.data.auto_template import AutoTemplate
    from tunesmith.data.settings import settings_of
    from tunesmith.models.template_check import PROBES, differences

    if not tokenizer.chat_template:
        return [("chat template", False, "there is none: other programs cannot write prompts for this model")]
    if isinstance(template, AutoTemplate):
        return [("chat template", True, "is the template (auto)")]
    try:
        found = {item.probe: item for item in differences(template, tokenizer, settings_of(config), with_default=True)}
    except TemplateError as error:
        return [("chat template", False, str(error))]
    rows: list[Row] = []
    for probe in PROBES:
        lines = found[probe].lines(tokenizer, template.name) if probe in found else []
        rows.append((f"ids: {probe}", not lines, "\n".join(["first differing tokens", *lines]) if lines else "equal"))
    return rows


def _end_rows(template: Any, tokenizer: Any, path: Path) -> list[Row]:
    """End tokens of the template, the tokenizer, generation_config.json and config.json."""
    from tunesmith.data.stop import end_tokens

    ends = end_tokens(template, tokenizer)
    if not ends:
        return [("end token", False, "the template's end tokens are not in this tokenizer")]
    first = ends[0]
    rows: list[Row] = [
        (
            "end token of the tokenizer",
            tokenizer.eos_token_id in ends,
            f"{tokenizer.eos_token!r}, template: {_names(tokenizer, ends)}",
        )
    ]
    for file in ("generation_config.json", "config.json"):
        given = _read(path / file).get("eos_token_id")
        ids = given if isinstance(given, list) else [given]
        if given is None and file == "config.json":
            continue
        wanted = first in ids if file == "generation_config.json" else bool(set(ids) & set(ends))
        rows.append(
            (
                f"end tokens of {file}",
                wanted,
                f"{_names(tokenizer, [item for item in ids if item is not None]) or 'none'}",
            )
        )
    return rows


def _names(tokenizer: Any, ids: Any) -> str:
    return ", ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
