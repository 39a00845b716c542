"""How a configuration key is declared and what is known about it. The keys are in the files beside this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict, Unpack

TRAIN = ("train",)
DATA = ("train", "data")
BATCH = ("infer",)
ROWS = (*DATA, *BATCH)
MAKE = ("data make", "data dialogue")
MAKING = (*MAKE, "data split")
CHAT = ("chat", "api", "webchat", *BATCH, *MAKE)
INFER = (*CHAT, "export")
MODEL = ("train", *INFER, "eval")
TOKENIZER = ("train", "data", *INFER, "eval", "data split")
EVAL = ("eval",)
BASE = (*TOKENIZER, "expand")
COMMANDS = ("train", "data", "export", "chat", "api", "webchat", "infer", "eval", "expand", *MAKING)
"""The commands that take a configuration; `data` is data preview, check and convert."""


class Facts(TypedDict, total=False):
    """What `key` may be told beside default and help."""

    choices: tuple[str, ...]
    ge: float
    gt: float
    le: float
    lt: float
    commands: tuple[str, ...]
    not_yet: str
    not_yet_values: Mapping[str, str]
    note: str
    aliases: tuple[str, ...]
    value_names: Mapping[str, str]
    secret: bool
    native: bool
    whole: bool


def key(default: Any, help: str, **facts: Unpack[Facts]) -> Any:
    """Declares a key of the configuration as a dataclass field.

    Args:
        default: the value where the user says nothing; tuples for lists.
        help: what the key does, one or two sentences.
        **facts: `choices`; `ge`/`gt`/`le`/`lt` bounds; `commands` that use it (default: those of its group);
            `not_yet` / `not_yet_values`: why any other value than the default, or these values, are refused;
            `note`: what is special about it in Tunesmith; `aliases`: other names, accepted silently;
            `value_names`: other spellings of values; `secret`: never printed or written; `native`: transformers'
            TrainingArguments owns it (default: as the group); `whole`: text is one item of the list, commas and all.
    """
    return field(default=default, repr=not facts.get("secret", False), metadata={"help": help, **facts})


class Group:
    """Base of the groups of keys.

    Attributes:
        TITLE: heading in the help.
        COMMANDS: commands that use its keys.
        NOT_YET: why its keys are refused when set to anything but the default; empty where they are built.
        NATIVE: its keys are fields of transformers' TrainingArguments, under the same names.
    """

    TITLE: ClassVar[str] = ""
    COMMANDS: ClassVar[tuple[str, ...]] = TRAIN
    NOT_YET: ClassVar[str] = ""
    NATIVE: ClassVar[bool] = False


@dataclass(frozen=True)
class Key:
    """All facts about one key.

    Attributes:
        name: as in YAML.
        type: the annotation, such as `int | None` or `tuple[str, ...]`.
        kinds: the parts of `type` without None.
        nullable: whether null is a value of its own; where it is not, null means the default.
        default: value where the user says nothing.
        help: what it does.
        group: heading it stands under.
        commands: the commands that use it; others ignore it.
        choices: allowed values; empty: any.
        bounds: `ge`, `gt`, `le`, `lt` -> number.
        not_yet: why any value but the default is refused; empty where the key is built.
        not_yet_values: value -> why it is refused.
        note: what is special about it in Tunesmith.
        aliases: other names, accepted silently.
        value_names: other spelling -> value.
        secret: never printed or written.
        native: transformers' TrainingArguments has it.
        whole: text is one item of a list, not split at commas.
    """

    name: str
    type: str
    kinds: tuple[str, ...]
    nullable: bool
    default: Any
    help: str
    group: str
    commands: tuple[str, ...]
    choices: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    not_yet: str = ""
    not_yet_values: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    aliases: tuple[str, ...] = ()
    value_names: Mapping[str, str] = field(default_factory=dict)
    secret: bool = False
    native: bool = False
    whole: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the value is a tuple."""
        return any(kind.startswith("tuple") for kind in self.kinds)

    @property
    def is_bool(self) -> bool:
        """Whether the value is a plain yes/no."""
        return self.kinds == ("bool",)


def keys_of(group: type[Group]) -> dict[str, Key]:
    """The keys that a group declares, in order."""
    found = {}
    for item in dataclasses.fields(group):  # type: ignore[arg-type]
        if "help" in item.metadata:
            found[item.name] = _describe(item, group)
    return found


def _describe(item: dataclasses.Field[Any], group: type[Group]) -> Key:
    facts = dict(item.metadata)
    bounds = {name: facts.pop(name) for name in ("ge", "gt", "le", "lt") if name in facts}
    parts = str(item.type).split(" | ")
    facts.setdefault("commands", group.COMMANDS)
    facts.setdefault("not_yet", group.NOT_YET)
    facts.setdefault("native", group.NATIVE)
    return Key(
        name=item.name,
        type=str(item.type),
        kinds=tuple(part for part in parts if part != "None"),
        nullable="None" in parts,
        default=item.default,
        group=group.TITLE,
        bounds=bounds,
        **facts,
    )
