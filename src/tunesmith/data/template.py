"""A template as frozen data, and the loader of the YAML files under `templates/`. Nothing here renders."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, get_args

from tunesmith.core.errors import TemplateError
from tunesmith.core.lazy import nearest

Kind = Literal[
    "plain",
    "reasoning",
    "reasoning_close_tag_only",
    "system_in_first_user",
    "system_in_last_user",
    "plain_lstrip_tools_without_system",
]
EmptyThoughts = Literal["all", "last", "never"]

CONTENT = "{{content}}"
CALL_ID = "{{call_id}}"
BOS = "{{bos_token}}"
EOS = "{{eos_token}}"


@dataclass(frozen=True, slots=True)
class Token:
    """A slot element that is one token looked up by name, never split; BOS and EOS are the tokenizer's own."""

    name: str


Slot = tuple[str | Token, ...]
"""Elements in order; the tokenizer encodes each string apart. `{{content}}` stands for the text of the message."""


@dataclass(frozen=True, slots=True)
class Template:
    """How a family writes a conversation.

    Attributes:
        name: the `template:` value.
        kind: where system text goes and how thoughts are treated. `system_in_last_user`: inside the last user text, as
            the user of a chat sees it at each turn.
        prefix: written once at the very start.
        system: the system part; in the kinds `system_in_..._user` it stands inside a user text.
        user: a user message up to where the model answers.
        assistant: an answer with its end-of-turn text.
        observation: results of tools up to where the model answers; with `{{call_id}}` in it each result is written
            apart, with the id of its call.
        function: an answer that calls tools.
        observation_join: what the family writes between two results in one turn, inside `observation`.
        ending: written after the last answer, at the very end.
        strip: roles whose texts lose the blanks around them.
        default_system: system text where the conversation has none.
        stop_words: texts of tokens that end an answer, beside eos.
        replace_eos: the tokenizer's eos becomes `stop_words[0]`.
        efficient_eos: one eos at the very end; earlier turns are ended by a label on the next turn's first token.
        replace_jinja_template: an export writes `jinja_of` even where the tokenizer has a chat template.
        tool_format: name in `tunesmith.data.tools.FORMATS`.
        lstrip_tools: the text of the tools begins without its newlines where there is no system text.
        tools_before_user: the text of the tools stands before the last user message, not in the system part.
        drops_thoughts: answers before the last user message lose their thoughts, in training too.
        empty_thoughts: which answers without a thought get an empty one.
        thought_words: marks around a thought, with their blanks.
        tool_call_words: marks around a call.
        mm_plugin: media plugin and token names, data for the media layer.
        differs: fields in which this is the official form and not LLaMA-Factory's; empty where they are the same.
    """

    name: str
    user: Slot
    assistant: Slot
    observation: Slot
    function: Slot
    kind: Kind = "plain"
    prefix: Slot = ()
    system: Slot = (CONTENT,)
    observation_join: str = "\n"
    ending: Slot = ()
    strip: tuple[str, ...] = ()
    default_system: str = ""
    stop_words: tuple[str, ...] = ()
    replace_eos: bool = False
    efficient_eos: bool = False
    replace_jinja_template: bool = False
    tool_format: str = "default"
    lstrip_tools: bool = False
    tools_before_user: bool = False
    drops_thoughts: bool = False
    empty_thoughts: EmptyThoughts = "all"
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    tool_call_words: tuple[str, str] = ("<tool_call>", "</tool_call>")
    mm_plugin: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({"name": "base"}))
    differs: tuple[str, ...] = ()

    @property
    def links_calls(self) -> bool:
        """Whether calls and results carry ids."""
        return any(isinstance(element, str) and CALL_ID in element for element in self.observation)

    @property
    def call_mark(self) -> str:
        """A mark that opens calls inside the answer; text beside the calls goes before it."""
        first = self.function[0]
        return first.partition(CONTENT)[0].strip() if isinstance(first, str) else ""

    @property
    def answer_marks(self) -> tuple[str, ...]:
        """Marks that an answer may write out in its text: a thought's and a call's."""
        return _stripped(self.thought_words + self.tool_call_words)

    @property
    def reasons(self) -> bool:
        """Whether the family has a thinking mode."""
        return self.kind in ("reasoning", "reasoning_close_tag_only")

    @property
    def empty_thought(self) -> str:
        """What stands before an answer without a thought; empty for families that do not reason."""
        if not self.reasons:
            return ""
        return self.thought_words[1] if self.kind == "reasoning_close_tag_only" else "".join(self.thought_words)

    @property
    def token_names(self) -> frozenset[str]:
        """Names of the tokens that slots look up, bos and eos excepted."""
        names = {element.name for slot in self._slots for element in slot if isinstance(element, Token)}
        return frozenset(names - {BOS, EOS})

    @property
    def control_text(self) -> str:
        """All text that the template writes itself; token names in it must not come out of a row's text."""
        texts = [element for slot in self._slots for element in slot if isinstance(element, str)]
        return "\n".join([*texts, *self.stop_words, *self.token_names, self.observation_join, *self._marks])

    @property
    def _slots(self) -> tuple[Slot, ...]:
        return (self.prefix, self.system, self.user, self.assistant, self.observation, self.function, self.ending)

    @property
    def _marks(self) -> tuple[str, ...]:
        return self.thought_words if self.reasons else ()


@functools.lru_cache(maxsize=256)
def _stripped(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for word in words)


_SLOTS = ("prefix", "system", "user", "assistant", "observation", "function", "ending")
_NO_CONTENT = ("prefix", "ending")
_TEXTS = ("observation_join", "default_system", "tool_format", "inherits")
_CHOICES = MappingProxyType({"kind": get_args(Kind), "empty_thoughts": get_args(EmptyThoughts)})
_FLAGS = (
    "replace_eos",
    "efficient_eos",
    "replace_jinja_template",
    "lstrip_tools",
    "tools_before_user",
    "drops_thoughts",
)
_OFFICIAL = "official"
_ABOUT = ("inherits", _OFFICIAL)
_PAIRS = ("thought_words", "tool_call_words")


def template_names() -> tuple[str, ...]:
    """All names that `load_template` knows, sorted."""
    return tuple(sorted(_definitions()))


@functools.cache
def load_template(name: str, compat: bool = False) -> Template:
    """The template of that name.

    Args:
        name: the `template:` value.
        compat: as LLaMA-Factory writes it, where the model's own template is known to differ.

    Raises:
        TemplateError: nobody knows the name, or its YAML does not fit the schema.
    """
    known = _definitions()
    if name not in known:
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else "; `auto` takes the tokenizer's own chat template"
        raise TemplateError(f"template: {name!r} is not known{hint}")
    definition = _resolve(name, known)
    official = {} if compat else _official(name, known)
    changed = tuple(key for key, value in official.items() if definition.get(key) != value)
    return build_template(name, {**definition, **official}, changed)


def is_family(name: str, other: str) -> bool:
    """Whether two templates are written in one file."""
    files = _files()
    return name in files and files[name] == files.get(other)


def build_template(name: str, definition: Mapping[str, Any], differs: tuple[str, ...] = ()) -> Template:
    """Checks one resolved definition against the schema and freezes it.

    Raises:
        TemplateError: an unknown field, a wrong type, or a slot that is missing.
    """
    check_definition(name, definition)
    values: dict[str, Any] = {key: _freeze(key, value) for key, value in definition.items() if key not in _ABOUT}
    for slot in ("user", "assistant"):
        if slot not in values:
            raise TemplateError(f"template {name!r}: the slot {slot!r} is missing")
    values.setdefault("observation", values["user"])
    values.setdefault("function", values["assistant"])
    return Template(name=name, differs=differs, **values)


def check_definition(name: str, definition: Mapping[str, Any]) -> None:
    """Checks the fields and types of one entry of a YAML file.

    Raises:
        TemplateError: with the first fault found.
    """
    allowed = {item.name for item in fields(Template)} - {"name", "differs"} | set(_ABOUT)
    for key, value in definition.items():
        if key == _OFFICIAL and isinstance(value, dict):
            check_definition(f"{name}, official", value)
            continue
        if key not in allowed:
            raise TemplateError(f"template {name!r}: unknown field {key!r}; allowed: {', '.join(sorted(allowed))}")
        if not _fits(key, value):
            raise TemplateError(f"template {name!r}: the field {key!r} cannot be {value!r}")


def _fits(key: str, value: Any) -> bool:
    if key in _SLOTS:
        elements = value if isinstance(value, list) else [value]
        tokens = [element["token"] for element in elements if isinstance(element, dict) and set(element) == {"token"}]
        texts = [element for element in elements if isinstance(element, str)]
        holds = sum(text.count(CONTENT) for text in texts) == (key not in _NO_CONTENT)
        return holds and len(tokens) + len(texts) == len(elements) and all(isinstance(item, str) for item in tokens)
    if key in _CHOICES:
        return value in _CHOICES[key]
    if key in (*_TEXTS, _OFFICIAL):
        return isinstance(value, str)
    if key in _FLAGS:
        return isinstance(value, bool)
    if key == "mm_plugin":
        return value is None or (isinstance(value, dict) and isinstance(value.get("name"), str))
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return is_texts and (key not in _PAIRS or len(value) == 2)


def _freeze(key: str, value: Any) -> Any:
    if key in _SLOTS:
        return tuple(_element(item) for item in (value if isinstance(value, list) else [value]))
    if key == "mm_plugin":
        return MappingProxyType(value or {"name": "base"})
    return tuple(value) if isinstance(value, list) else value


def _element(item: str | dict[str, str]) -> str | Token:
    if isinstance(item, dict):
        return Token(item["token"])
    return Token(item) if item in (BOS, EOS) else item


def _resolve(name: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    definition = {key: value for key, value in known[name].items() if key != _OFFICIAL}
    parent = definition.get("inherits")
    if parent is None:
        return definition
    if parent not in known:
        raise TemplateError(f"template {name!r} inherits {parent!r}, which no file defines")
    return {**_resolve(parent, known), **definition}


def _official(name: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of the official form; never inherited, but another template's may be taken by its name."""
    fields_or_name = known[name].get(_OFFICIAL, {})
    if not isinstance(fields_or_name, str):
        return dict(fields_or_name)
    if fields_or_name not in known:
        raise TemplateError(f"template {name!r}: official names {fields_or_name!r}, which no file defines")
    return _official(fields_or_name, known)


@functools.cache
def _definitions() -> Mapping[str, Mapping[str, Any]]:
    """Every entry of every YAML file, by name, as written."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Mapping[str, Any]] = {}
    for file_name, text in _texts():
        for name, definition in yaml.load(text, Loader=loader).items():
            if name in found:
                raise TemplateError(f"template {name!r} is defined twice, the second time in {file_name}")
            found[name] = definition
    return MappingProxyType(found)


def _texts() -> list[tuple[str, str]]:
    folder = resources.files("tunesmith.data").joinpath("templates")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return [(file.name, file.read_text("utf-8")) for file in files]


@functools.cache
def _files() -> Mapping[str, str]:
    """Template name -> the file that defines it; names stand at the beginning of a line."""
    names = [(line.split(":")[0].strip("\"'"), file) for file, text in _texts() for line in text.splitlines()]
    known = _definitions()
    return MappingProxyType({name: file for name, file in names if name in known})
