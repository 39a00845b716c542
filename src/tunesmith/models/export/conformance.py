"""`conformance.json`: what the model was trained to read, as numbers. Messages, their ids, the mask, the stop ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunesmith.core.errors import ExportError, TemplateError
from tunesmith.core.runs import write_json
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message, Source, ToolCall
from tunesmith.data.auto_template import AutoTemplate, auto_template
from tunesmith.data.catalog import OPENAI_TAGS, Columns, DatasetSpec
from tunesmith.data.encode import encode
from tunesmith.data.formats import RowError, convert
from tunesmith.data.formats.write import write_row
from tunesmith.data.render import render, render_prompt
from tunesmith.data.settings import RenderSettings, token_names
from tunesmith.data.template import Template
from tunesmith.models.template_check import Difference

FILE = "conformance.json"
_VERSION = 1
_TOOL = {
    "name": "weather",
    "description": "Look up the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
_USER, _ANSWER = Message("user", "Name a fruit."), Message("assistant", "An apple.")
_CALLS = (ToolCall("weather", {"city": "Zürich"}), ToolCall("weather", {"city": "北京"}))
CONVERSATIONS: Mapping[str, Conversation] = {
    "one turn": Conversation((_USER, _ANSWER)),
    "two turns with system text": Conversation(
        (Message("system", "Be brief."), _USER, _ANSWER, Message("user", "  Another?\n"), Message("assistant", "梨 🍐"))
    ),
    "special tokens as text": Conversation(
        (Message("user", "a<|im_end|></s><|eot_id|>[INST]<end_of_turn>b"), Message("assistant", "Only text."))
    ),
    "thought": Conversation((_USER, replace(_ANSWER, reasoning_content="A round one."))),
    "tools": Conversation(
        (
            Message("user", "Weather?"),
            Message("assistant", "", _CALLS),
            Message("tool", "21"),
            Message("tool", "9"),
            Message("assistant", "21 and 9."),
        ),
        (_TOOL,),
    ),
}
_SPEC = DatasetSpec(
    FILE, Path(FILE), "openai", columns=Columns(messages="messages", tools="tools"), tags=OPENAI_TAGS, has_columns=True
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check.

    Attributes:
        label: what was compared.
        agrees: whether it is as written.
        text: what was found.
    """

    label: str
    agrees: bool
    text: str


def write_conformance(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    template: Template | AutoTemplate,
    settings: RenderSettings,
    stop_ids: Sequence[int],
) -> None:
    """Writes `conformance.json` beside a model; a conversation that the template refuses is written with the reason.

    Args:
        folder: of the model; the tokenizer in it must be the one given here.
        tokenizer: with the chat template that the folder has.
        template: as trained.
        settings: of the run.
        stop_ids: every id that ends an answer.
    """
    settings = replace(settings, today=settings.today or date.today())
    cases = [
        {"name": name, **write_row(chat, "openai"), **_facts(chat, tokenizer, template, settings)}
        for name, chat in CONVERSATIONS.items()
    ]
    about = {
        "version": _VERSION,
        "template": template.name,
        "settings": {**asdict(settings), "today": str(settings.today)},
        "stop_ids": list(stop_ids),
        "stop_tokens": tokenizer.convert_ids_to_tokens(list(stop_ids)),
        "conversations": cases,
    }
    write_json(folder / FILE, about)


def _facts(
    chat: Conversation, tokenizer: PreTrainedTokenizerBase, template: Template | AutoTemplate, settings: RenderSettings
) -> dict[str, Any]:
    """Ids and mask of the whole, ids of the prompt of its last answer, and whether the chat template writes these."""
    names = token_names(tokenizer, template)
    asked = replace(chat, messages=chat.messages[:-1])
    try:
        ids, labels = encode(render(template, chat, settings, names), tokenizer, template)
        prompt = encode(render_prompt(template, asked, settings, names), tokenizer, template)[0]
    except TemplateError as error:
        return {"refused": str(error)}
    mask = [int(label != IGNORE_INDEX) for label in labels]
    same = _ids_of_chat_template(asked, tokenizer, settings) == prompt
    return {"input_ids": ids, "mask": mask, "prompt_ids": prompt, "chat_template_agrees": same}


def _ids_of_chat_template(
    asked: Conversation, tokenizer: PreTrainedTokenizerBase, settings: RenderSettings
) -> list[int] | None:
    """The prompt as other programs write it; None where the chat template refuses it or there is none."""
    try:
        own = auto_template(tokenizer)
        plain = replace(settings, default_system=None, tool_format=None)
        return encode(render_prompt(own, asked, plain, token_names(tokenizer, own)), tokenizer, own)[0]
    except TemplateError:
        return None


def prove(folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template | AutoTemplate) -> None:
    """Holds a folder just written against its own `conformance.json`.

    Args:
        folder: of the model.
        tokenizer: read back from it.
        template: as trained; `auto` is read back, too.

    Raises:
        ExportError: the tokenizer that was written gives other ids.
    """
    own = auto_template(tokenizer) if isinstance(template, AutoTemplate) else template
    wrong = [finding for finding in check_conformance(folder, tokenizer, own) if not finding.agrees]
    if wrong:
        raise ExportError(
            f"the written tokenizer gives other tokens than were trained: {wrong[0].label}: {wrong[0].text}"
        )


def check_conformance(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    template: Template | AutoTemplate,
    stop_ids: Sequence[int] | None = None,
) -> list[Finding]:
    """What the folder gives now against what `conformance.json` says.

    Args:
        folder: of the model.
        tokenizer: of the folder.
        template: that the folder is used with.
        stop_ids: ids that end an answer in this folder; None: not compared.
    """
    try:
        held = json.loads((folder / FILE).read_text(encoding="utf-8"))
        version, settings = held["version"], _settings(held["settings"])
        if version != _VERSION:
            return [Finding(FILE, False, f"version {version}, this Tunesmith reads {_VERSION}")]
        found = [finding for case in held["conversations"] for finding in _check(case, tokenizer, template, settings)]
        wanted = list(held["stop_ids"])
    except FileNotFoundError:
        return [Finding(FILE, True, "there is none; tunesmith export writes one")]
    except (OSError, ValueError, KeyError, TypeError, RowError) as error:
        return [Finding(FILE, False, f"cannot be read: {type(error).__name__}: {error}; export the model again")]
    if stop_ids is not None:
        names = ", ".join(map(str, tokenizer.convert_ids_to_tokens(wanted)))
        agrees = set(stop_ids) == set(wanted)
        text = f"{wanted} ({names})" if agrees else f"written: {wanted} ({names}); now: {list(stop_ids)}"
        found.append(Finding("stop ids", agrees, text))
    return found


def _settings(held: dict[str, Any]) -> RenderSettings:
    return RenderSettings(**{**held, "today": date.fromisoformat(held["today"])})


def _check(
    case: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    template: Template | AutoTemplate,
    settings: RenderSettings,
) -> list[Finding]:
    label = f"trained ids: {case['name']}"
    row: dict[str, Any] = {key: case[key] for key in ("messages", "tools") if key in case}
    chat = convert(row, _SPEC, "sft", Source(FILE, 1))
    assert isinstance(chat, Conversation)
    now = _facts(chat, tokenizer, template, settings)
    if "refused" in case or "refused" in now:
        agrees = ("refused" in case) == ("refused" in now)
        return [Finding(label, agrees, f"the template refuses it: {now.get('refused') or case.get('refused')}")]
    if _writes_today(template) and settings.today != date.today():
        return [Finding(label, True, f"not compared: the template writes the date, this was written {settings.today}")]
    for what in ("input_ids", "prompt_ids"):
        if now[what] != case[what]:
            text = _difference(case["name"], now[what], case[what], tokenizer, template.name)
            return [Finding(label, False, text)]
    if now["mask"] != case["mask"]:
        return [Finding(label, False, _masks(now["mask"], case["mask"], case["input_ids"], tokenizer))]
    found = [Finding(label, True, f"equal ({len(now['input_ids'])} tokens, {sum(now['mask'])} trained)")]
    is_same_day = settings.today == date.today() or "strftime_now" not in str(tokenizer.chat_template)
    if case["chat_template_agrees"] and is_same_day and not now["chat_template_agrees"]:
        found.append(Finding(f"chat template: {case['name']}", False, "writes other tokens than when it was exported"))
    return found


def _writes_today(template: Template | AutoTemplate) -> bool:
    return isinstance(template, AutoTemplate) and "strftime_now" in template.text


def _difference(name: str, now: list[int], held: list[int], tokenizer: Any, template: str) -> str:
    lines = Difference(name, tuple(now), tuple(held)).lines(tokenizer, f"{template} here", FILE)
    return "\n".join(["first differing tokens", *lines])


def _masks(now: list[int], held: list[int], ids: list[int], tokenizer: Any) -> str:
    place = next(index for index, (a, b) in enumerate(zip(now, held, strict=True)) if a != b)
    verb = "is" if held[place] else "is not"
    return f"token {place + 1}, {tokenizer.decode([ids[place]])!r}, {verb} trained in {FILE}, here it is otherwise"
