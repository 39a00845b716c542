"""`generate` and `stream` over an engine's steps: what engines have in common beside their interface."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import Completion, Delta, EngineStats, GenerationRequest, completion_of

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.inference.scoring import Score, ScoreRequest

LOOKAHEAD = 8
"""`generate` keeps this many requests a slot with the engine: enough to choose among, few enough to finish in order."""


class SteppedEngine:
    """`generate` and `stream` over `submit`, `cancel` and `step`: the base of all engines.

    Several streams may be under way on one thread; deltas of requests that came by `submit` alone go to whoever calls
    `step`, so the two ways are not for use at the same time.
    """

    _mail: dict[int, deque[Delta]]

    def submit(self, request: GenerationRequest) -> int:
        raise NotImplementedError

    def cancel(self, request_id: int) -> None:
        raise NotImplementedError

    def step(self) -> list[Delta]:
        raise NotImplementedError

    def stats(self) -> EngineStats:
        raise NotImplementedError

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """No live adapters unless the engine can."""
        return ()

    def add_adapter(self, name: str, path: Path) -> None:
        """Refused unless the engine can."""
        raise ModelError(f"adapter {name!r} ({path}): this engine has no live adapters; merge it with tunesmith export")

    def replace_adapter(self, name: str, path: Path) -> None:
        """Refused unless the engine can."""
        self.add_adapter(name, path)

    def score(self, requests: Sequence[ScoreRequest], adapter: str | None = None) -> Iterator[tuple[int, Score]]:
        """Refused unless the engine can."""
        raise ModelError("this engine gives no log-probabilities of given tokens; set infer_backend: huggingface")

    def remove_adapter(self, name: str) -> None:
        """Refused: there is none."""
        self._refuse_unknown(name)

    def _refuse_unknown(self, name: str | None) -> None:
        """None is the model as it was loaded."""
        if name is not None and name not in self.adapter_names:
            raise ModelError(f"there is no adapter {name!r}; there are {list(self.adapter_names)}")

    def _refuse_taken(self, name: str) -> None:
        if name in self.adapter_names:
            raise ModelError(f"there is an adapter {name!r} already; replace it, or take another name")

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Yields deltas as they come; with n answers they are mixed, each with its `index`."""
        request_id = self.submit(request)
        mail = self._open_mail(request_id)
        unfinished = request.sampling.n
        try:
            while unfinished:
                while not mail:
                    self._work()
                delta = mail.popleft()
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            self._close_mail(request_id)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the request, completion) as answers finish; requests are taken as they can be worked on."""
        coming = enumerate(requests)
        places: dict[int, int] = {}
        parts: dict[tuple[int, int], list[Delta]] = {}
        n_left: dict[int, int] = {}
        lookahead = LOOKAHEAD * self.stats().slots
        try:
            while True:
                for place, request in itertools.islice(coming, lookahead - len(places)):
                    request_id = self.submit(request)
                    self._open_mail(request_id)
                    places[request_id], n_left[request_id] = place, request.sampling.n
                if not places:
                    return
                self._work()
                for delta in [delta for request_id in places for delta in self._take_mail(request_id)]:
                    parts.setdefault((delta.request_id, delta.index), []).append(delta)
                    if delta.finish_reason is None:
                        continue
                    yield places[delta.request_id], completion_of(parts.pop((delta.request_id, delta.index)))
                    n_left[delta.request_id] -= 1
                    if not n_left[delta.request_id]:
                        self._close_mail(delta.request_id)
                        del places[delta.request_id], n_left[delta.request_id]
        finally:
            for request_id in places:
                self._close_mail(request_id)

    def _open_mail(self, request_id: int) -> deque[Delta]:
        self._mail = getattr(self, "_mail", {})
        return self._mail.setdefault(request_id, deque())

    def _take_mail(self, request_id: int) -> list[Delta]:
        mail = self._mail[request_id]
        taken = list(mail)
        mail.clear()
        return taken

    def _close_mail(self, request_id: int) -> None:
        self._mail.pop(request_id, None)
        self.cancel(request_id)

    def _work(self) -> None:
        for delta in self.step():
            if delta.request_id in self._mail:
                self._mail[delta.request_id].append(delta)
