"""Trained stretches of a rendered conversation, counted against the answers that were to be learnt."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import Conversation, Segment
from tunesmith.data.settings import RenderSettings


def masked_answers(conversation: Conversation, segments: Sequence[Segment], settings: RenderSettings) -> int:
    """How many answers carry no loss though no setting and no message asks for that."""
    if settings.mask_history or settings.train_on_prompt:
        return 0
    if any(message.trained for message in conversation.messages):
        return 0
    wanted = sum([message.role == "assistant" and message.trained is None for message in conversation.messages])
    stretches, before = 0, False
    for part in segments:
        stretches += part.trained and not before
        before = part.trained
    return max(wanted - stretches, 0)
