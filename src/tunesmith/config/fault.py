"""What a rule reports: a fault of some keys, before it is known where these were set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not go together.

    Attributes:
        keys: the keys concerned; the first that the user set is the place that is reported.
        what: the fault in one sentence.
        fix: what to do; empty when `what` says it.
    """

    keys: tuple[str, ...]
    what: str
    fix: str = ""
