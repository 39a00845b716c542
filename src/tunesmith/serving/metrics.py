"""Counters of a server in Prometheus' text form. Labels come from a fixed set, never from what a client sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PREFIX = "tunesmith"


@dataclass(slots=True)
class Histogram:
    """Seconds, in buckets."""

    buckets: tuple[float, ...] = _SECONDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Adds one."""
        place = next((i for i, edge in enumerate(self.buckets) if seconds <= edge), len(self.buckets))
        self.counts[place] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterator[str]:
        """In text form."""
        so_far = 0
        for edge, count in zip((*map(str, self.buckets), "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{edge}"}} {so_far}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {so_far}"


@dataclass(slots=True)
class Metrics:
    """What one server counts; used on its event loop only.

    Attributes:
        requests: (route, status) -> how many.
        prompt_tokens: of answered requests.
        generated_tokens: made, of answers that were given up, too.
        disconnects: clients that went away before the end.
        open_requests: generations under way or waiting.
        first_token: seconds from a request to its first token.
        whole: seconds from a request to its end.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    disconnects: int = 0
    open_requests: int = 0
    first_token: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it.

        Args:
            gauges: name -> (help, value) of what others know.
        """
        return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        yield from _head("http_requests_total", "counter", "Requests by route and status.")
        for (route, status), count in sorted(self.requests.items()):
            yield f'{PREFIX}_http_requests_total{{route="{route}",status="{status}"}} {count}'
        for name, text, number in (
            ("prompt_tokens_total", "Tokens of prompts.", self.prompt_tokens),
            ("generated_tokens_total", "Tokens made.", self.generated_tokens),
            ("disconnects_total", "Clients that went away before the end.", self.disconnects),
        ):
            yield from _head(name, "counter", text)
            yield f"{PREFIX}_{name} {number}"
        everything = {**gauges, "open_requests": ("Generations under way or waiting.", self.open_requests)}
        for name, (text, value) in everything.items():
            yield from _head(name, "gauge", text)
            yield f"{PREFIX}_{name} {value:g}"
        for name, text, histogram in (
            ("time_to_first_token_seconds", "From a request to its first token.", self.first_token),
            ("request_seconds", "From a request to its end.", self.whole),
        ):
            yield from _head(name, "histogram", text)
            yield from histogram.lines(f"{PREFIX}_{name}")


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"
