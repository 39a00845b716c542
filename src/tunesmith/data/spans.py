"""Trained stretches of a rendered conversation, counted against the answers that were to be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from tunesmith.core.types import Conversation, Segment
from tunesmith.data.settings import RenderSettings


def masked_answers(conversation: Conversation, segments: Sequence[Segment], settings: RenderSettings) -> int:
    """How many answers carry no loss though no setting and no message asks for that."""
    if settings.mask_history or settings.train_on_prompt:
        return 0
    if any(message.trained for message in conversation.messages):
        return 0
    wanted = sum(message.role == "assistant" and message.trained is None for message in conversation.messages)
    stretches = sum(bool(trained) for trained, _ in groupby(segments, key=lambda part: part.trained))
    return max(wanted - stretches, 0)
