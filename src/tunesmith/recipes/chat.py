"""`tunesmith chat`: talk to a model in the terminal. Other front ends stand on inference/chat.py, not on this."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.core import log
from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import Message

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.chat import ChatFormat
    from tunesmith.inference.engine import Engine, SamplingParams

WELCOME = "Type a message. `clear` forgets the conversation, `exit` leaves, `/system TEXT` sets the system prompt.\n"
_logger = log.get_logger(__name__)


def run(config: RunConfig) -> None:
    """Loads the model and talks until `exit`, the end of input, or Ctrl-C at the prompt."""
    from tunesmith.inference.engine import SamplingParams
    from tunesmith.inference.opening import open_model

    opened = open_model(config, batch_size=1)
    seed = config.seed if "seed" in config.explicit else None
    Terminal(
        engine=opened.engine,
        form=opened.form,
        sampling=SamplingParams.from_config(config, seed=seed),
        skip_special_tokens=config.skip_special_tokens,
    ).loop()


def read_line(prompt: str) -> str:
    """One line from standard input; where that is no terminal, the line is written after the prompt, as if typed.

    Raises:
        EOFError: the input is at its end.
    """
    line = input(prompt)
    if not sys.stdin.isatty():
        write(line + "\n")
    return line


def write(text: str) -> None:
    """Shows text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass(slots=True)
class Terminal:
    """One conversation in a terminal.

    Attributes:
        engine: answers.
        form: messages to ids and back.
        sampling: how answers are drawn.
        skip_special_tokens: leave special tokens out of the text.
        read: gives the next line for a prompt; EOFError at the end.
        write: shows text.
        messages: the conversation so far.
        system: system prompt set with `/system`; None: the template's or `default_system`.
    """

    engine: Engine
    form: ChatFormat
    sampling: SamplingParams
    skip_special_tokens: bool = True
    read: Callable[[str], str] = read_line
    write: Callable[[str], None] = write
    messages: list[Message] = field(default_factory=list)
    system: str | None = None

    def loop(self) -> None:
        """Reads and answers until the user leaves."""
        self.write(WELCOME)
        while True:
            try:
                line = self.read("\nUser: ")
            except (EOFError, KeyboardInterrupt):
                self.write("\n")
                return
            except UnicodeDecodeError:
                self.write("This line is not UTF-8 text and was passed over.\n")
                continue
            if line.strip() == "exit":
                return
            self.handle(line)

    def handle(self, line: str) -> None:
        """One line that does not leave: a command, or a message to answer."""
        text = line.strip()
        if text == "clear":
            self.messages.clear()
            self.write("The conversation is forgotten.\n")
        elif text == "/system" or text.startswith("/system "):
            self.system = text.removeprefix("/system").strip() or None
            self.write(f"System prompt: {self.system}\n" if self.system else "System prompt: as at the start.\n")
        elif text:
            self.answer(line)

    def answer(self, question: str) -> None:
        """Streams the answer to one message; Ctrl-C stops the answer and keeps what came of it."""
        asked = [*self.messages, Message("user", question)]
        system = [Message("system", self.system)] if self.system else []
        pieces: list[str] = []
        self.write("Assistant: ")
        try:
            request = self.form.request([*system, *asked], self.sampling)
            for piece in self.form.stream(self.engine, request, skip_special_tokens=self.skip_special_tokens):
                pieces.append(piece)
                self.write(piece)
        except KeyboardInterrupt:
            self.write(" [stopped]")
        except TunesmithError as error:
            self.write(f"\n{error}\n`clear` begins anew.\n")
            return
        self.write("\n")
        answer = "".join(pieces)
        if answer:
            self.messages = [*asked, Message("assistant", answer)]
