"""What can be done with a run as it stands, with words on it: the buttons Stop and Resume follow this."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState
from tunesmith.recipes.runs import config_file
from tunesmith.studio.shell import checkpoints_of
from tunesmith.studio.words import say


@dataclass(frozen=True, slots=True)
class Actions:
    """Which buttons make sense.

    Attributes:
        stop: it is at work or waits, and was not asked to stop yet: asked twice it would end without a checkpoint.
        kill: there is a process to kill.
        resume: it ended before its work was done, and can go on or start over.
        why: what they would do, or why they do nothing.
    """

    stop: bool = False
    kill: bool = False
    resume: bool = False
    why: str = ""


def actions_of(state: RunState | None, language: str = "en") -> Actions:
    """What can be done with a run.

    Args:
        state: of the run; None where none is chosen.
        language: of the words.
    """
    if state is None:
        return Actions(why=say("act.none", language))
    if state.is_active:
        at_work = "running" if state.state == "starting" else state.state
        kind = "" if state.command == "train" or at_work != "running" else "_other"
        why = say(f"act.{at_work}{kind}", language)
        return Actions(stop=state.state != "stopping", kill=state.state != "queued", why=why)
    if state.state == "finished":
        return Actions(why=say("act.finished", language))
    try:
        config_file(state.folder, state.command)
    except TunesmithError:
        return Actions(why=say("act.no_config", language))
    return Actions(resume=True, why=_resumed(state, language))


def _resumed(state: RunState, language: str) -> str:
    if state.command != "train":
        return say("act.again", language)
    newest = next(iter(checkpoints_of(state.folder)), None)
    return say("act.from", language, checkpoint=newest.name) if newest else say("act.over", language)
