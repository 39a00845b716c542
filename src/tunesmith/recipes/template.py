"""`tunesmith template`: templates listed and shown, and a model folder held against the one it was trained with."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message, Segment
from tunesmith.recipes.paint import Painter, token_texts

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
    Painter().stretches([(part.text, part.trained) for part in _joined(segments)])
    _say(f"\nend tokens: {', '.join(dict.fromkeys([eos, *template.stop_words]))}; tools: {template.tool_format}")
    if template.default_system:
        _say(f"default system text: {template.default_system}")
    if template.differs:
        _say(f"LLaMA-Factory writes otherwise: {', '.join(template.differs)} (template_compat: llamafactory)")


def _joined(segments: list[Segment]) -> list[Segment]:
    """Neighbours that are both trained, or both not, as one."""
    runs = [(trained, list(run)) for trained, run in groupby(segments, lambda part: part.trained)]
    return [Segment("".join(part.text for part in run), trained) for trained, run in runs]


def verify(model: str, name: str | None = None) -> int:
    """Prints a conversation token by token, and a table of what was checked.

    Args:
        model: a model's folder, or a name that `model_name_or_path` takes.
        name: the template; default: the one in export_report.json, the one of a known model, else auto.

    Returns:
        0; 2 where something disagrees.

    Raises:
        ModelError: there is no such model, or it has no tokenizer.
        TemplateError: nobody knows the name, or the tokenizer lacks a token of the template.
    """
    from tunesmith.config.load import load_config
    from tunesmith.models import hub
    from tunesmith.models.export.conformance import check_conformance
    from tunesmith.models.template_choice import choose_template
    from tunesmith.models.tokenizer import read_tokenizer

    folder = Path(model).expanduser()
    path = folder if folder.is_dir() else hub.resolve_model(model).path
    report = _read(path / "export_report.json")
    name = name or report.get("template")
    words = [f"model_name_or_path={path}", *([f"template={name}"] if name else [])]
    words += ["template_compat=llamafactory"] if report.get("template_compat") else []
    config = load_config(words, "chat")
    tokenizer = read_tokenizer(path)
    template, _ = choose_template(config, tokenizer)
    _say(f"{path}, template {template.name}\n")
    _show_tokens(template, config, tokenizer)
    ends = _stop_ids(path, tokenizer)
    rows = [*_text_rows(template, config, tokenizer), *_end_rows(template, tokenizer, path)]
    rows += [(item.label, item.agrees, item.text) for item in check_conformance(path, tokenizer, template, ends)]
    width = max(len(row[0]) for row in rows)
    for label, agrees, found in rows:
        _say(f"  {'ok  ' if agrees else 'DIFF'}  {label:<{width}}  {found}")
    return 0 if all(agrees for _, agrees, _ in rows) else 2


def _show_tokens(template: Any, config: Any, tokenizer: Any) -> None:
    """A conversation token by token; one without system text where the template takes none."""
    from tunesmith.data.encode import encode
    from tunesmith.data.render import render
    from tunesmith.data.settings import settings_of, token_names

    names, settings = token_names(tokenizer, template), settings_of(config)
    try:
        segments = render(template, _CHAT, settings, names)
    except TemplateError:
        segments = render(template, Conversation(_CHAT.messages[1:]), settings, names)
    ids, labels = encode(segments, tokenizer, template)
    painter = Painter()
    painter.legend()
    texts = token_texts(ids, tokenizer)
    painter.tokens([(text, label != IGNORE_INDEX) for text, label in zip(texts, labels, strict=True)])
    painter.note("")


def _stop_ids(path: Path, tokenizer: Any) -> list[int]:
    """Where other programs stop: generation_config.json, or the tokenizer's eos."""
    given = _read(path / "generation_config.json").get("eos_token_id", tokenizer.eos_token_id)
    return given if isinstance(given, list) else [given]


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
