"""The subject of a sentence that leads up to speech: a name, a pronoun, or nobody that rules can name."""

from __future__ import annotations

from dataclasses import dataclass

PRONOUN = "\0pronoun"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who does something.

    Attributes:
        name: as the text says; PRONOUN for he and she; None: the sentence has speech, and no subject that is known.
        word: the pronoun itself.
        is_thought: the quote is thought or written, not said.
    """

    name: str | None
    word: str = ""
    is_thought: bool = False
