"""The studio's frame: language, workspace, and what every tab needs of it. The tabs are in files of their own."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.run_state import find_runs
from tunesmith.studio.kept import keep_fields
from tunesmith.studio.words import say
from tunesmith.studio.workspace import Workspace

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For every event of a page: no entry in a public list of functions, nothing grey over the outputs."""
_Made = TypeVar("_Made")
Wording = Callable[[str], dict[str, Any]]
"""Language -> the properties of a component that hold words."""
_logger = get_logger(__name__)


@dataclass
class Studio:
    """What a tab gets of the page around it.

    Attributes:
        page: the page.
        workspace: which folder it may touch.
        language: a Radio with `en` or `zh`; an input of handlers that say something.
        parts: worded components and their texts; filled by `worded`.
        train_form: the form of the tab Train, for tabs that fill it; that tab sets it.
        forms: every form of keys; `key_form` adds it.
        hearers: what is done when another language is chosen; filled by `follow_language`.
        lookouts: fields that say which run is looked at: the page chooses them anew when it is opened.
    """

    page: gr.Blocks
    workspace: Workspace
    language: gr.Radio
    parts: list[tuple[Any, Wording]] = field(default_factory=list)
    train_form: Any = None
    forms: list[Any] = field(default_factory=list)
    lookouts: list[Any] = field(default_factory=list)
    hearers: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Tells this page from others that the browser keeps fields of."""
        return f"studio:{self.workspace.root}"

    def worded(self, part: _Made, *, choices: tuple[str, Sequence[str]] | None = None, **keys: str) -> _Made:
        """Gives a component its texts, now and whenever the language is switched.

        Args:
            part: component, tab or accordion.
            choices: of a Radio: values, and what stands before them in the table of words.
            **keys: property (`label`, `info`, `value`, `placeholder`) -> key of the table of words.
        """

        def wording(language: str) -> dict[str, Any]:
            texts: dict[str, Any] = {name: say(key, language) for name, key in keys.items()}
            return texts | ({"choices": choices_in(*choices, language)} if choices else {})

        self.parts.append((part, wording))
        for name, text in wording("en").items():
            setattr(part, name, text)
        return part

    def follow_language(self, act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Calls `act` whenever another language is chosen, once the page's own words are switched."""
        self.hearers.append((act, inputs, outputs))

    def markdown(self, key: str, **facts: Any) -> gr.Markdown:
        """A text of the table as Markdown."""
        return self.worded(gr.Markdown(**facts), value=key)

    def run_chooser(self, elem_id: str, *, checkpoints: bool = True, multiselect: bool = False) -> gr.Dropdown:
        """A list of the workspace's runs (and their checkpoints), read anew whenever it is opened.

        Args:
            elem_id: of the Dropdown.
            checkpoints: also list the checkpoints of each run.
            multiselect: several can be chosen.

        Returns:
            A Dropdown; its value is a path from the workspace on, or None.
        """
        chooser = gr.Dropdown(
            run_folders(self.workspace, checkpoints=checkpoints),
            value=[] if multiselect else None,
            multiselect=multiselect,
            elem_id=elem_id,
            interactive=True,
        )
        self.worded(chooser, label="run.chooser")

        def fresh() -> Any:
            return gr.update(choices=run_folders(self.workspace, checkpoints=checkpoints))

        chooser.focus(fresh, None, chooser, **PRIVATE)
        self.page.load(fresh, None, chooser, **PRIVATE)
        return chooser

    def connect(self) -> None:
        """Makes the language switch work and what is typed last; called once, when all tabs are there."""
        parts = [part for part, _ in self.parts]

        def switch(language: str) -> list[Any]:
            return [gr.update(**wording(language)) for _, wording in self.parts]

        speak = "(language) => window.tunesmithWords.speak(language)"
        self.language.change(None, self.language, None, js=speak, **PRIVATE)
        self.language.change(switch, self.language, parts, **PRIVATE)
        for act, inputs, outputs in self.hearers:
            self.language.change(act, inputs, outputs, **PRIVATE)
        keep_fields(self.page, self.name, self.forms, self.lookouts)


def choices_in(prefix: str, values: Sequence[str], language: str = "en") -> list[tuple[str, str]]:
    """The choices of a Radio: word and value."""
    return [(say(f"{prefix}.{value}", language), value) for value in values]


def run_folders(workspace: Workspace, *, checkpoints: bool = True) -> list[str]:
    """Runs of the workspace, the newest first, each followed by its checkpoints, as the page shows paths."""
    found = []
    for run in find_runs(workspace.root):
        found.append(workspace.shown(run.folder))
        if checkpoints:
            found += [workspace.shown(path) for path in checkpoints_of(run.folder)]
    return found


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    steps = [(path.name.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*") if path.is_dir()]
    return [path for _, path in sorted(((int(step), path) for step, path in steps if step.isdigit()), reverse=True)]


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Makes what goes wrong in a handler a message on the page, which stays until it is closed.

    A TunesmithError is told as it is; anything else goes to the log with its traceback.
    """

    @wraps(handler)
    def guarded(*values: Any) -> Any:
        try:
            return handler(*values)
        except Exception as error:
            raise shown_error(error) from None

    return guarded


def shown_error(error: Exception, language: str = "en") -> gr.Error:
    """An error as Gradio shows it: words as they are, never as tags."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, TunesmithError):
        text = str(error)
    else:
        _logger.error("the page failed", exc_info=error)
        text = say("shell.fault", language)
    lines = [line.rstrip() for line in html.escape(text).split("\n")]
    body = "<br>".join("&nbsp;" * (len(line) - len(line.lstrip())) + line.lstrip() for line in lines)
    return gr.Error(body, duration=None, title=say("shell.refused", language), print_exception=False)


def server_function(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes a function that a script on the page may call: what it must not have is empty, and says nothing."""

    def asked_for(asked: Any = None) -> Any:
        try:
            return function(asked)
        except (TunesmithError, AttributeError, TypeError, ValueError, OSError):
            return {}

    asked_for.__name__ = function.__name__
    return asked_for
