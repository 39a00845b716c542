"""The nouns that travel between layers: messages, examples, segments. Plain data, no behaviour beyond small views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

IGNORE_INDEX = -100
"""Label of a token that carries no loss."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: `arguments` is the parsed object, never its JSON text."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks; `tool` is the result of a tool call (LLaMA-Factory's `observation`).
        content: the text; may be empty beside `tool_calls`.
        tool_calls: the calls that an assistant message makes (LLaMA-Factory's `function_call`).
        reasoning_content: the thought before the answer, without its marks; None where there is none.
        trained: overrides the default mask of the row: False never carries loss, True always does; None leaves it to
            the settings (`train_on_prompt`, `mask_history`).
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_content: str | None = None
    trained: bool | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row comes from, for every message about it.

    Attributes:
        file: path as the user wrote it.
        row: from 1; in a JSONL, CSV or txt file the line.
    """

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row for supervised fine-tuning; the last message is the assistant's, or absent for a prompt only.

    Attributes:
        messages: in order; a system message, if any, comes first.
        tools: function schemas `{name, description, parameters}`; None: no tools were given, (): an empty list was.
        source: where the row comes from.
        weight: factor on the loss of its tokens.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    source: Source | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a better and a worse answer (rm, dpo)."""

    prompt: Conversation
    chosen: Message
    rejected: Message
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A conversation whose last answer was judged (kto)."""

    conversation: Conversation
    is_desirable: bool
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text (pt)."""

    text: str
    source: Source | None = None


Example = Conversation | Preference | Feedback | Text


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of rendered text with one answer to 'does it carry loss'.

    Attributes:
        text: the characters.
        trained: whether its tokens are labels.
        literal: written by the template: special-token text in it becomes that special token. Content that came from a
            row or a request has `literal=False`: special-token text in it stays plain text.
        breaks: the tokenizer encodes this segment apart from the one before it, even where `trained` is the same.
    """

    text: str
    trained: bool = False
    literal: bool = True
    breaks: bool = False


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row ready for a batch: one sequence, or two (the answers of a pair) laid one behind the other.

    Attributes:
        input_ids: token ids, length T.
        labels: same length; IGNORE_INDEX where no loss.
        source: where the row comes from.
        lost_tokens: tokens that truncation took away, 0 if none.
        lost_trained_tokens: of those, how many carried loss.
        weight: factor on its loss; the row, or each of its tokens, counts as that many items.
        second: where the second sequence begins; 0 where there is one only.
        is_desirable: the verdict on its answer (kto).
    """

    input_ids: list[int]
    labels: list[int]
    source: Source | None = None
    lost_tokens: int = 0
    lost_trained_tokens: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    second: int = 0
    is_desirable: bool = True

    @property
    def n_trained(self) -> int:
        """Tokens that carry loss once labels are shifted (the first position of a sequence predicts nothing)."""
        return sum(label != IGNORE_INDEX for _, labels in self.sequences() for label in labels[1:])

    def sequences(self) -> list[tuple[list[int], list[int]]]:
        """Ids and labels of each sequence."""
        if not self.second:
            return [(self.input_ids, self.labels)]
        cut = self.second
        return [(self.input_ids[:cut], self.labels[:cut]), (self.input_ids[cut:], self.labels[cut:])]
