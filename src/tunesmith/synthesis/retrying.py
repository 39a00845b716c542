"""When a call to an endpoint is repeated, and how long to wait before: backoff, Retry-After, requests a minute."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_BACKOFF = 60.0
LONGEST_WAIT = 900.0
"""Seconds that a Retry-After may ask for; beyond that the run ends, to be gone on with later."""


def backoff(first: float, repetition: int) -> float:
    """Seconds before a repetition (from 0): doubled each time, at random between half of that and all of it."""
    return min(LONGEST_BACKOFF, first * 2.0**repetition) * random.uniform(0.5, 1.0)


def asked_wait(retry_after: str | None, retry_after_ms: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date; None where it says nothing readable."""
    try:
        if retry_after_ms:
            return max(0.0, float(retry_after_ms) / 1000)
        return None if not retry_after else max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after or "")
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


@dataclass(slots=True)
class Gate:
    """Lets calls begin: not before a pause that the endpoint asked for is over, not more than so many a minute.

    Attributes:
        per_minute: calls that may begin in a minute; None: any number.
        repeated: reason -> repetitions, for the report.
    """

    per_minute: float | None = None
    repeated: Counter[str] = field(default_factory=Counter)
    _open_at: float = 0.0
    _next: float = 0.0

    def pause(self, seconds: float) -> None:
        """Nobody begins for so long."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    async def enter(self) -> None:
        """Waits until a call may begin."""
        if self.per_minute:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + 60.0 / self.per_minute
            await asyncio.sleep(mine - now)
        while (left := self._open_at - time.monotonic()) > 0:
            # A little apart, so that not all who wait begin in the same moment.
            await asyncio.sleep(left + random.uniform(0, 0.05))
