"""What users typed outlives a reload and the page's server: kept by the browser, for all fields of a page alike."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import gradio as gr

_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_FIELDS = (gr.Textbox, gr.Number, gr.Dropdown, gr.Radio, gr.Checkbox)


def keep_fields(page: gr.Blocks, name: str, forms: Sequence[Any] = (), but: Collection[Any] = ()) -> None:
    """Makes the browser keep what is typed and chosen; called once, within the page, when all of it is laid out.

    Only what users touched is kept: a window first, then the browser, for windows opened later. `web/keep.js` does it;
    the server takes no part.

    Args:
        page: whose fields are kept: all that have an element id.
        name: tells pages of one address apart, such as the workspace.
        forms: `gr.HTML` parts whose values are kept, too; they trigger `input`.
        but: fields that say what is looked at, and follow the runs.
    """
    fields = [part for part in page.blocks.values() if isinstance(part, _FIELDS) and part.elem_id and part not in but]
    parts = [*forms, *fields]
    for part in parts:
        part.input(None, part, None, js=_call("note", name, part.elem_id), **_PRIVATE)
        if isinstance(part, gr.Textbox):  # pasted text, and the box of a message that was sent, which is emptied
            part.change(None, part, None, js=_call("follow", name, part.elem_id), **_PRIVATE)
    page.load(None, None, parts, js=_call("back", name, [part.elem_id for part in parts]), **_PRIVATE)


def fill_untouched(event: Any, given: gr.JSON, parts: Sequence[Any], name: str) -> None:
    """After an event: what the server gave goes into those of its parts that no user has touched.

    Between asking the server and its answer users may have typed, and what was typed counts.

    Args:
        event: a listener of the page that fills `given`.
        given: holds a list of values, one a part.
        parts: of the page, kept by `keep_fields`.
        name: as there.
    """
    ids = [part.elem_id for part in parts]
    event.then(None, given, list(parts), js=_call("fill", name, ids), **_PRIVATE)


def _call(function: str, name: str, given: Any) -> str:
    said = ", ".join(json.dumps(one) for one in (name, given))
    return f"(value) => window.tunesmithKept.{function}({said}, value)"
