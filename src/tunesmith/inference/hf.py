"""The engine over a transformers or peft model: continuous batching, prefix cache, chunked prefill, live adapters.

A step takes one token of every answer under way and a piece of the prompts that are still to be read, and runs the
model once over all of them (line.py). Models that cannot take such a line get padded batches (padded.py).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.inference import sampling as draw
from tunesmith.inference.beams import beam_search
from tunesmith.inference.engine import Delta, EngineStats, GenerationRequest, SteppedEngine
from tunesmith.inference.keys_values import PrefixCache
from tunesmith.inference.line import LineForward, probe_sequence
from tunesmith.inference.padded import PaddedForward
from tunesmith.inference.schedule import Limits, Scheduler
from tunesmith.inference.scoring import PromptScorer, Score, ScoreRequest, check_requests
from tunesmith.inference.sequence import Decode, Sequence
from tunesmith.models import rope
from tunesmith.models.forward import base_model_of
from tunesmith.models.live_adapter import AdapterHooks, LiveAdapter, load_live_adapter
from tunesmith.models.memory import cache_bytes
from tunesmith.models.provenance import check_provenance

logger = get_logger(__name__)

PROBE_TOKENS = 7


class HuggingFaceEngine(SteppedEngine):
    """Generates with a causal language model. Not thread-safe.

    Args:
        model: a transformers or peft model; is put into eval mode. Between steps others may use it.
        pad_token_id: fills the left of shorter prompts where batches are padded.
        batch_size: answers under way together at most.
        decode: token ids to text; needed for stop texts only.
        limits: memory and sizes of a step; None: by the device.
        padded: True: padded batches even where the model could do without.
        base_path: folder of the base model, against which adapters' notes of their base are checked; None: no check.

    Attributes:
        model: as given.
        context: prompt and answer together, in tokens; None: unknown.
    """

    def __init__(  # noqa: PLR0913 - what a caller may want to set
        self,
        model: Any,
        *,
        pad_token_id: int | None = None,
        batch_size: int = 8,
        decode: Decode | None = None,
        limits: Limits | None = None,
        padded: bool = False,
        base_path: Path | None = None,
    ) -> None:
        self.model = model.eval()
        self.batch_size = batch_size
        self._base = base_model_of(model)
        self._decode = decode
        self._pad = 0 if pad_token_id is None else pad_token_id
        self._base_path = base_path
        self.context: int | None = rope.context_of(model.config)
        if rope.kind_of(model.config) == "dynamic":  # frequencies follow the longest text of a batch
            self.batch_size, padded = 1, True
        self._hooks = AdapterHooks(self._base)
        self._adapters: dict[str, LiveAdapter] = {}
        self._request_ids, self._versions = itertools.count(1), itertools.count(1)
        self._beams: deque[Sequence] = deque()
        device = self._base.get_input_embeddings().weight.device
        limits = limits or Limits.of(device, cache_bytes(device))
        self._forward = self._choose_forward(padded)
        if not self._forward.joins_midway:
            limits = limits.without_line()
        cache = PrefixCache(limits.max_bytes if limits.prefix_cache else 0)
        self._schedule = Scheduler(batch_size, limits, cache, self._forward.bytes_per_token)
        self._generated = 0

    def _choose_forward(self, padded: bool) -> LineForward | PaddedForward:
        if not padded:
            line = LineForward(self.model, self._hooks)
            if line.works():
                return line
            logger.info("this model cannot run rows end to end over a cache: requests are answered in padded batches")
        return PaddedForward(self.model, self._hooks, self._pad)

    def submit(self, request: GenerationRequest) -> int:
        """Takes a request; its work begins with the next steps.

        Raises:
            ModelError: the prompt is empty or leaves no room in the context, or the adapter is not known.
        """
        n_prompt = len(request.prompt_ids)
        if n_prompt == 0:
            raise ModelError("a prompt without tokens cannot be answered")
        adapter = self._adapter(request.adapter) if request.adapter is not None else None
        budget = request.sampling.budget(n_prompt)
        if self.context is not None:
            if n_prompt >= self.context:
                raise ModelError(f"the prompt has {n_prompt} tokens, the model's context holds {self.context}")
            budget = min(budget, self.context - n_prompt)
        request_id = next(self._request_ids)
        for index in range(request.sampling.n):
            generator = draw.make_generator(request.sampling.seed, index)
            sequence = Sequence(request_id, index, request, budget, generator, adapter)
            if request.sampling.num_beams > 1:
                self._beams.append(sequence)
            else:
                self._schedule.add(sequence)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Ends a request and frees its place."""
        self._beams = deque(sequence for sequence in self._beams if sequence.request_id != request_id)
        for sequence in self._schedule.cancel(request_id):
            self._forward.release(sequence)

    @torch.inference_mode()
    def step(self) -> list[Delta]:
        """One forward pass: a token for each answer under way, a piece of the prompts that wait.

        A beam search is done whole, before anything else.
        """
        if self._beams:
            return [self._search(self._beams.popleft())]
        chunks = self._schedule.plan()
        if not chunks:
            return []
        logits = self._forward.forward(chunks)
        for chunk in chunks:
            chunk.sequence.n_cached = chunk.end
        deltas = self._extend([chunk.sequence for chunk in chunks if chunk.is_last], logits)
        for sequence in self._schedule.retire():
            self._forward.release(sequence)
        self._generated += sum(len(delta.token_ids) for delta in deltas)
        return deltas

    def _extend(self, sequences: list[Sequence], logits: torch.Tensor) -> list[Delta]:
        """The next token of each sequence, from logits (N, V)."""
        if not sequences:
            return []
        best: list[int] = logits.argmax(dim=-1).tolist()
        return [self._next(sequence, row, top) for sequence, row, top in zip(sequences, logits, best, strict=True)]

    def _next(self, sequence: Sequence, logits: torch.Tensor, best: int) -> Delta:
        request = sequence.request
        token_id: int | None = best
        if not draw.is_plain(request):
            adjusted = draw.adjust(logits, request, sequence.answer)
            token_id = draw.choose(adjusted, request.sampling, sequence.generator)
        if token_id is None:
            return sequence.end()
        wanted = request.sampling.logprobs
        logprob = None if wanted is None else draw.logprob_of(logits, token_id, wanted)
        return sequence.accept(token_id, self._decode, logprob)

    def _search(self, sequence: Sequence) -> Delta:
        with self._hooks.everywhere(sequence.adapter):
            delta = beam_search(self.model, sequence, self._pad, self._decode)
        self._generated += len(delta.token_ids)
        return delta

    def stats(self) -> EngineStats:
        """Counters, now."""
        schedule = self._schedule
        return EngineStats(
            waiting=len(schedule.waiting) + len(self._beams),
            running=len(schedule.running),
            slots=self.batch_size,
            prompt_tokens=schedule.prompt_tokens,
            cached_tokens=schedule.reused_tokens,
            generated_tokens=self._generated,
            cache_bytes=schedule.n_bytes,
        )

    def forget_prefixes(self) -> None:
        """Empties the prefix cache: for measurements, and to give its memory back."""
        self._schedule.forget_all()

    def score(self, requests: SequenceOf[ScoreRequest], adapter: str | None = None) -> Iterator[tuple[int, Score]]:
        """Yields (index of the request, its log-probabilities), in any order; nothing is generated.

        Args:
            requests: `batch_size` of them go through the model together; common beginnings are read once.
            adapter: name of a live adapter.

        Raises:
            ModelError: a request that is empty or longer than the context.
        """
        check_requests(requests, self.context)
        chosen = self._adapter(adapter) if adapter is not None else None
        yield from PromptScorer(self._forward, self.batch_size, chosen).score(requests)

    # ---- adapters

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Live adapters, in the order they came."""
        return tuple(self._adapters)

    def _adapter(self, name: str) -> LiveAdapter:
        if name not in self._adapters:
            raise ModelError(f"there is no adapter {name!r}; there are {list(self._adapters)}")
        return self._adapters[name]

    def add_adapter(self, name: str, path: Path) -> None:
        """Loads an adapter under a new name.

        Raises:
            ModelError: the name is taken, or the adapter cannot be served live; the message says what to do.
        """
        if name in self._adapters:
            raise ModelError(f"there is an adapter {name!r} already; replace it, or take another name")
        self._adapters[name] = self._load(name, path)

    def replace_adapter(self, name: str, path: Path) -> None:
        """Loads new weights under a name in use: requests under way finish with the old, later ones see none of it."""
        old = self._adapter(name)
        self._adapters[name] = self._load(name, path)
        self._schedule.forget(old.version)

    def remove_adapter(self, name: str) -> None:
        """Drops an adapter; requests under way finish with it."""
        self._schedule.forget(self._adapter(name).version)
        del self._adapters[name]

    def _load(self, name: str, path: Path) -> LiveAdapter:
        if self.model is not self._base:
            raise ModelError(
                f"adapter {name!r} cannot be added: the model was loaded with an adapter on it that is served alone"
            )
        if self._base_path is not None:
            check_provenance(path, self._base_path)
        adapter = load_live_adapter(name, path, self._base, next(self._versions))
        self._hooks.prepare(adapter)
        self._forward.check(probe_sequence(PROBE_TOKENS, adapter))
        return adapter
