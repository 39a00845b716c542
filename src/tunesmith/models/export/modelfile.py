"""The Ollama Modelfile that goes with an exported folder: text only."""

from __future__ import annotations

from collections.abc import Sequence


def modelfile(*, template: str, system: str, stops: Sequence[str], num_ctx: int | None) -> str:
    """The text of a Modelfile for the folder that it lies in.

    Args:
        template: Ollama's (Go) template text; empty leaves the line out.
        system: default system prompt; empty leaves the line out.
        stops: texts that end an answer, in the order to write them.
        num_ctx: context in tokens; None leaves the line out.
    """
    lines = ["# written by Tunesmith; run: ollama create NAME -f Modelfile", "", "FROM .", ""]
    if template:
        lines += [f'TEMPLATE """{template}"""', ""]
    if system:
        lines += [f'SYSTEM """{system}"""', ""]
    lines += [f'PARAMETER stop "{_escape(stop)}"' for stop in dict.fromkeys(stops)]
    if num_ctx is not None:
        lines.append(f"PARAMETER num_ctx {num_ctx}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
