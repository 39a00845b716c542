"""`tunesmith webui`: the studio in the browser."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.words import take_switch, take_value
from tunesmith.core.errors import TunesmithError

_USAGE = """\
usage: tunesmith webui [--host ADDRESS] [--port PORT] [--auth NAME:PASSWORD] [--token TOKEN] [--share]

The web page over the runs of a workspace: train, evaluate, chat, export, look at data, watch and compare runs.
It listens on 127.0.0.1, from port 7860 on. Another address wants --auth or --token.

  GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, GRADIO_AUTH, GRADIO_SHARE, GRADIO_ROOT_PATH
                          the same from the environment, and the path that a proxy in front strips
  TUNESMITH_PAGE_TOKEN    the token, out of sight of other users of the machine
  TUNESMITH_WORKSPACE     the folder that the page works in; default: this one
  TUNESMITH_READ_PATHS    further folders that it may read models and data from, with ':' between

Runs do not need the page: it can be closed, stopped and started again; tunesmith runs shows and does the same.
"""


def main(words: Sequence[str]) -> None:
    """Shows the page until a signal."""
    rest = list(words)
    if any(word in ("-h", "--help") for word in rest):
        print(_USAGE, end="")
        return
    said = {name: take_value(rest, f"--{name}") for name in ("host", "port", "auth", "token")}
    share = take_switch(rest, "--share") or None
    if rest:
        raise TunesmithError(f"webui does not know {rest[0]!r}: tunesmith webui -h lists its options")
    from tunesmith.studio.page import run_studio
    from tunesmith.studio.settings import PageSettings, pairs_of

    auth = None if said["auth"] is None else pairs_of(said["auth"].split(","))
    port = None if said["port"] is None else _port(said["port"])
    run_studio(PageSettings.from_env(host=said["host"], port=port, auth=auth, token=said["token"], share=share))


def _port(text: str) -> int:
    if not text.isdigit():
        raise TunesmithError(f"--port: {text!r} is no number")
    return int(text)
