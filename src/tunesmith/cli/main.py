"""The entry point of `tunesmith`, `llamafactory-cli`, `lmf`: finds the command, runs it, turns errors to exit codes."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.core import env, lazy, log
from tunesmith.core.errors import Interrupted, TunesmithError
from tunesmith.core.machine import machine_error

COMMANDS = {
    "train": "tunesmith.cli.train:main",
    "chat": "tunesmith.cli.chat:main",
    "export": "tunesmith.cli.export:main",
    "expand": "tunesmith.cli.expand:main",
    "data": "tunesmith.cli.data:main",
    "api": "tunesmith.cli.api:main",
    "infer": "tunesmith.cli.infer:main",
    "template": "tunesmith.cli.template:main",
    "runs": "tunesmith.cli.runs:main",
    "webchat": "tunesmith.cli.webchat:main",
    "webui": "tunesmith.cli.webui:main",
    "compare": "tunesmith.cli.compare:main",
    "eval": "tunesmith.cli.evaluate:main",
    "explain": "tunesmith.cli.explain:main",
    "schema": "tunesmith.cli.schema:main",
    "env": "tunesmith.cli.environment:main",
    "version": "tunesmith.cli.version:main",
}
"""Command -> `module:function`; the function takes the words after the command and returns an exit code or nothing."""

USAGE = """\
usage: tunesmith COMMAND [CONFIG.yaml] [key=value | --key value]...

  train      fine-tune, evaluate, predict: what do_train, do_eval and do_predict say
  chat       talk to a model in the terminal
  webui      the studio: all of this in the browser
  webchat    talk to a model in the browser
  api        serve a model over HTTP, as OpenAI's clients speak it
  infer      answer a data set into a file
  eval       ask a benchmark: MMLU, C-Eval, CMMLU
  compare    hold runs against each other on the same samples; table, JSON, page
  export     merge an adapter into its base model and write it out
  expand     add blocks to a model that leave its answers as they are (LLaMA Pro)
  data       preview CONFIG shows rows as the model sees them; check CONFIG reads every row;
             convert INPUT OUTPUT writes rows in another layout; make, dialogue, split
             make data sets out of long text
  runs       list, show, queue, stop, resume, clone, compare: what was trained here, and what waits
  template   list, show NAME; verify FOLDER holds a model folder against its template

  explain    explain KEY [CONFIG]: what a key does, and its value in a file
  schema     schema [FILE]: a JSON Schema of the configuration, for editors
  env        versions, hardware, folders
  version    the version
  help       this text

tunesmith COMMAND -h lists the keys that a command uses.
The same file serves every command: each takes the keys that it knows.

example:
  tunesmith train examples/train_lora/smollm2_lora_sft.yaml learning_rate=1e-4
"""

_HELP_WORDS = ("help", "--help", "-h")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; default: those of this process.

    Returns:
        0; 2 for what the user can mend; 128 + signal when stopped; 1 for a fault of ours.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        log.setup()
    except TunesmithError as error:
        return _refused(error)
    log.quiet_libraries()
    if not words or words[0] in _HELP_WORDS:
        print(USAGE, end="")
        return 0
    name = "version" if words[0] in ("--version", "-V") else words[0]
    if name not in COMMANDS:
        return _unknown(name)
    return _guarded(name, words[1:])


def _unknown(name: str) -> int:
    near = lazy.nearest(name, [*COMMANDS, "help"])
    hint = f"did you mean {near}? " if near else ""
    if name.lower().endswith((".yaml", ".yml", ".json")):
        hint = f"did you mean tunesmith train {name}? "
    print(f"error: unknown command {name!r}: {hint}tunesmith help lists the commands", file=sys.stderr)
    return 2


def _guarded(name: str, words: list[str]) -> int:
    """Runs the command; no error leaves with a traceback unless `TUNESMITH_DEBUG` is set."""
    try:
        command: Callable[[list[str]], int | None] = lazy.lookup(COMMANDS, name)
        code = command(words) or 0
        sys.stdout.flush()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except TunesmithError as error:
        return _refused(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader is gone; the interpreter must not fail on flushing stdout at exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        refused = machine_error(error)
        return _refused(refused) if refused else _fault(error)
    return code


def _refused(error: TunesmithError) -> int:
    """Says what the user can mend."""
    if env.switch("TUNESMITH_DEBUG"):
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _fault(error: Exception) -> int:
    """Says in one line what failed and where the traceback is."""
    if env.switch("TUNESMITH_DEBUG"):
        traceback.print_exc()
        return 1
    first = (str(error).splitlines() or [""])[0]
    print(f"error: {type(error).__name__}: {first}", file=sys.stderr)
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="tunesmith-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        print(f"  This should not happen. The full traceback is in {Path(file.name)}", file=sys.stderr)
    except OSError:  # there is no place to write it to
        print(f"  This should not happen.\n{text}", file=sys.stderr)
    return 1
