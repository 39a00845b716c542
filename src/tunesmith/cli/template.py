"""`tunesmith template list | show NAME | verify MODEL [NAME]`: what templates write, and whether a folder agrees."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.errors import TunesmithError
from tunesmith.core.lazy import nearest

_ACTIONS = ("list", "show", "verify")
_USAGE = """\
usage: tunesmith template list
       tunesmith template show NAME [compat]
       tunesmith template verify MODEL [NAME]

  list      every name of `template`, and where it differs from LLaMA-Factory's
  show      a conversation as the template writes it, what is learnt in marks; compat: as LLaMA-Factory writes it
  verify    a conversation token by token; then the model's tokenizer, chat template and end tokens are held against
            the template it was trained with (export_report.json) or NAME, and against its conformance.json, which
            an export writes; MODEL is a folder or a name; exit status 2 where they disagree
"""


def main(words: Sequence[str]) -> int:
    """Runs one action; 2 where `verify` finds a disagreement."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0
    action, *rest = words
    if action not in _ACTIONS:
        near = nearest(action, _ACTIONS)
        hint = f"did you mean tunesmith template {near}?" if near else f"it knows {', '.join(_ACTIONS)}"
        raise TunesmithError(f"template does not know {action!r}: {hint}")
    from tunesmith.recipes import template

    if action == "list":
        template.list_names()
    elif action == "show" and rest:
        template.show(rest[0], compat="compat" in rest[1:])
    elif action == "verify" and rest:
        return template.verify(rest[0], rest[1] if len(rest) > 1 else None)
    else:
        raise TunesmithError(f"template {action} needs {'a name' if action == 'show' else 'a model'}")
    return 0
