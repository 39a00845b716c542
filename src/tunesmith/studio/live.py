"""Live parts of the page: a run with its curves, the list of runs, runs beside each other. They ask; nothing pushes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from tunesmith.core.run_state import read_state
from tunesmith.studio.run_actions import actions_of
from tunesmith.studio.shell import PRIVATE, Studio, server_function, told
from tunesmith.studio.views import comparison, run_rows, run_view
from tunesmith.studio.web import text_of

_LIVE = """
<div class="live" data-state="none">
  <div class="head" role="status"><span class="badge"></span><span class="name"></span></div>
  <pre class="reason" hidden></pre>
  <progress class="bar" max="1" value="0" hidden></progress>
  <div class="facts"></div>
  <label class="controls" hidden><span class="weight-label"></span>
    <input class="weight" type="range" min="0" max="0.98" step="0.02" value="0.6"></label>
  <div class="charts"></div>
  <div class="log" hidden><b class="lines-title"></b><table><tbody class="lines" tabindex="0"></tbody></table></div>
</div>
"""
_LIST = '<div class="run-list"></div>'
_BESIDE = '<div class="beside"></div>'


def live_view(studio: Studio, elem_id: str) -> gr.HTML:
    """One run as it goes on: state, progress, curves, last lines.

    Its value is the run's folder; it triggers `tick` when the run has another state.
    """

    def view(asked: dict[str, Any]) -> dict[str, Any]:
        return run_view(studio.workspace, str(asked.get("folder", "")), asked.get("known"))

    return _asking(studio, elem_id, "", _LIVE, "live.js", view)


def follow_run(studio: Studio, view: gr.HTML, buttons: Mapping[str, gr.Button], why: gr.Markdown) -> None:
    """Makes buttons greyed out whenever they would do nothing to the run that a live view shows.

    Args:
        studio: the page.
        view: of the run.
        buttons: `stop`, `kill`, `resume`, as `run_actions.Actions` names them.
        why: says what they would do, or why they do nothing.
    """

    def stand(folder: str | None, language: str) -> list[Any]:
        found = actions_of(read_state(studio.workspace.inside(folder)) if folder else None, language)
        return [*(gr.update(interactive=getattr(found, name)) for name in buttons), found.why]

    given, shown = [view, studio.language], [*buttons.values(), why]
    view.tick(told(stand), given, shown, **PRIVATE)
    studio.follow_language(told(stand), given, shown)


def run_list(studio: Studio, elem_id: str) -> gr.HTML:
    """All runs, kept up to date. Its value is the list of folders that are chosen, the last one chosen at the end."""

    def rows(asked: Any) -> list[dict[str, Any]]:
        return run_rows(studio.workspace)

    return _asking(studio, elem_id, [], _LIST, "runs.js", rows)


def beside(studio: Studio, elem_id: str) -> gr.HTML:
    """Runs beside each other. Its value is what `views.comparison` gives."""
    return _asking(studio, elem_id, None, _BESIDE, "beside.js", None)


def compared(studio: Studio, names: list[str]) -> dict[str, Any]:
    """What `beside` shows."""
    return comparison(studio.workspace, names)


def _asking(
    studio: Studio, elem_id: str, value: Any, template: str, script: str, function: Callable[..., Any] | None
) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=text_of(script),
        apply_default_css=False,
        elem_id=elem_id,
        server_functions=[server_function(function)] if function else None,
    )
