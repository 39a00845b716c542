"""What vllm.py and sglang.py have in common: answers under way in an engine of others, adapters by version."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import ModelError
from tunesmith.inference.adapting import AdaptingEngine
from tunesmith.inference.engine import Delta, EngineStats, FinishReason, GenerationRequest, TokenLogprob
from tunesmith.inference.under_way import Decode, UnderWay, budget_of


@dataclass(slots=True, eq=False, kw_only=True)
class Work(UnderWay):
    """One answer under way elsewhere.

    Attributes:
        key: its name there.
        version: of its adapter; 0: none.
        has_begun: something came back.
    """

    key: str
    version: int = 0
    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class LoraRoom:
    """What an engine was started for.

    Attributes:
        rank: the highest.
        key: the key that raises it.
        count: adapters loaded together, those counted that only answers under way still need.
    """

    rank: int
    key: str
    count: int


class OutsideEngine(AdaptingEngine[int]):
    """Requests and adapters over an engine that has its own scheduler. Each answer is a request of its own there.

    Args:
        name: value of `infer_backend`.
        context: prompt and answer together, in tokens; None: unknown.
        slots: answers under way together.
        decode: token ids to text; needed for stop texts only.
        base: the base model's folder, against which adapters' notes of their base are checked; None: no check.
        lora: None: it was started without.
    """

    def __init__(
        self,
        name: str,
        *,
        context: int | None,
        slots: int,
        decode: Decode | None = None,
        base: Path | None = None,
        lora: LoraRoom | None = None,
    ) -> None:
        super().__init__()
        self.context = context
        self.slots = slots
        self._name = name
        self._decode = decode
        self._base = base
        self._lora = lora
        self._folder = Path(tempfile.mkdtemp(prefix=f"tunesmith-{name}-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._request_ids, self._versions = itertools.count(1), itertools.count(1)
        self._works: dict[str, Work] = {}
        self._loaded: dict[int, Path] = {}
        self._prompt_tokens = self._cached_tokens = self._generated = 0

    # ---- what a subclass brings

    def _send(self, work: Work) -> None:
        """Gives an answer to the engine; ValueError where it refuses."""
        raise NotImplementedError

    def _abort(self, keys: list[str]) -> None:
        raise NotImplementedError

    def _receive(self) -> list[Delta]:
        """Waits for the next tokens of some answers."""
        raise NotImplementedError

    def _load_lora(self, version: int, folder: Path) -> None:
        raise NotImplementedError

    def _unload_lora(self, version: int) -> None:
        raise NotImplementedError

    def _check(self, request: GenerationRequest) -> None:
        """ModelError where the engine has not what a request needs."""

    def _done(self, work: Work) -> None:
        """An answer is finished or cancelled."""

    # ---- requests

    def submit(self, request: GenerationRequest) -> int:
        """Takes a request; the engine begins with it in one of the next steps.

        Raises:
            ModelError: as every engine does; or the request needs what this one has not.
        """
        budget = budget_of(request, self.context)
        self._refuse_unknown(request.adapter)
        if request.sampling.num_beams > 1:
            raise ModelError(f"infer_backend {self._name} has no beam search; leave num_beams out")
        self._check(request)
        version = self._adapters[request.adapter] if request.adapter is not None else 0
        request_id = next(self._request_ids)
        for index in range(request.sampling.n):
            key = f"{request_id}-{index}"
            work = self._works[key] = Work(request_id, index, request, budget, key=key, version=version)
            try:
                self._send(work)
            except ValueError as error:
                del self._works[key]
                self.cancel(request_id)
                raise ModelError(f"{self._name} refuses the request: {error}") from error
        return request_id

    def cancel(self, request_id: int) -> None:
        """Ends a request and frees its place."""
        gone = [work for work in self._works.values() if work.request_id == request_id]
        if gone:
            self._abort([work.key for work in gone])
            self._forget(gone)

    def step(self) -> list[Delta]:
        """What the engine made since the last step; waits for it where answers are under way."""
        if not self._works:
            return []
        deltas = self._receive()
        self._generated += sum(len(delta.token_ids) for delta in deltas)
        self._forget([work for work in self._works.values() if work.finish_reason])
        return deltas

    def _take(
        self,
        work: Work,
        ids: Sequence[int],
        logprobs: Sequence[TokenLogprob],
        ended: FinishReason | None,
        n_cached: int,
    ) -> Iterator[Delta]:
        """Deltas of new tokens, one each, up to the end of the answer, which may be here or there.

        Args:
            work: whose tokens.
            ids: new ones, end tokens included.
            logprobs: of them, where they were asked for.
            ended: how the answer ended there.
            n_cached: tokens of the prompt that the engine had in its cache.
        """
        if not work.has_begun:
            work.has_begun = True
            self._prompt_tokens += len(work.request.prompt_ids)
            self._cached_tokens += n_cached
        for token_id, logprob in itertools.zip_longest(ids, logprobs):
            yield work.accept(token_id, self._decode, logprob)
            if work.finish_reason:
                break
        if work.finish_reason and ended is None:
            self._abort([work.key])  # a stop text came, of which the engine knows nothing
        elif ended and not work.finish_reason:
            work.finish_reason = ended
            yield Delta((), ended, None, work.request_id, work.index)

    def _forget(self, works: list[Work]) -> None:
        for work in works:
            del self._works[work.key]
            self._done(work)
        if works:
            self._drop_unused()

    def stats(self) -> EngineStats:
        """Counters, now; memory for keys and values is the engine's own matter."""
        running = sum(work.has_begun for work in self._works.values())
        return EngineStats(
            waiting=len(self._works) - running,
            running=running,
            slots=self.slots,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated,
        )

    # ---- adapters

    def _load(self, name: str, path: Path) -> int:
        """Gives an adapter to the engine under a version never used before: its caches go by that.

        The engine may read the folder again at any time, so it gets one of its own, which nobody writes to; in it the
        adapter is in its plainest form, for engines that know neither patterns of ranks nor of scalings.
        """
        from tunesmith.models.provenance import check_provenance
        from tunesmith.models.sum_adapter import write_sum

        if self._lora is None:
            raise ModelError(f"adapter {name!r}: {self._name} was started without LoRA")
        if len(self._loaded) >= self._lora.count:
            raise ModelError(f"adapter {name!r}: {self._name} holds {len(self._loaded)} adapters already; drop one")
        if self._base is not None:
            check_provenance(path, self._base)
        version = next(self._versions)
        folder = self._folder / str(version)
        rank = write_sum([path], folder)
        if rank > self._lora.rank:
            raise ModelError(
                f"adapter {path} has the rank {rank}, and room was made for {self._lora.rank}; raise {self._lora.key}"
            )
        try:
            self._load_lora(version, folder)
        except Exception as error:  # whatever stands in the way, the server goes on
            raise ModelError(f"adapter {path} does not fit this base model, says {self._name}: {error}") from error
        self._loaded[version] = folder
        return version

    def _left(self, adapter: int) -> None:
        self._drop_unused()

    def _drop_unused(self) -> None:
        """Drops versions that no name and no answer under way needs."""
        needed = {*self._adapters.values(), *(work.version for work in self._works.values())}
        for version in [version for version in self._loaded if version not in needed]:
            folder = self._loaded.pop(version)
            self._unload_lora(version)
            shutil.rmtree(folder, ignore_errors=True)
