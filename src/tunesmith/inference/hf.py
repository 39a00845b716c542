"""The engine over a transformers or peft model: continuous batching, prefix cache, chunked prefill, live adapters.

A step takes one token of every answer under way and a piece of the prompts that are still to be read, and runs the
model once over all of them (line.py). Models that cannot take such a line get padded batches (padded.py).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.inference import sampling as draw
from tunesmith.inference.adapting import AdaptingEngine
from tunesmith.inference.beams import beam_search
from tunesmith.inference.drafting import Drafter, trust
from tunesmith.inference.engine import Delta, EngineStats, GenerationRequest, joined
from tunesmith.inference.keys_values import PrefixCache
from tunesmith.inference.line import LineForward, probe_sequence
from tunesmith.inference.padded import PaddedForward
from tunesmith.inference.schedule import Limits, Scheduler
from tunesmith.inference.scoring import PromptScorer, Score, ScoreRequest, check_requests
from tunesmith.inference.sequence import Chunk, Sequence
from tunesmith.inference.under_way import Decode, budget_of
from tunesmith.models import depths, rope
from tunesmith.models.adapter_hooks import AdapterHooks
from tunesmith.models.forward import base_model_of
from tunesmith.models.live_adapter import LiveAdapter, load_live_adapter
from tunesmith.models.memory import cache_bytes
from tunesmith.models.provenance import check_provenance

logger = get_logger(__name__)

PROBE_TOKENS = 7
DRAFTED = 128
"""Drafted tokens a step at most, where nothing else bounds a step."""


class HuggingFaceEngine(AdaptingEngine[LiveAdapter]):
    """Generates with a causal language model. Not thread-safe.

    Args:
        model: a transformers or peft model; is put into eval mode. Between steps others may use it.
        pad_token_id: fills the left of shorter prompts where batches are padded.
        batch_size: answers under way together at most.
        decode: token ids to text; needed for stop texts only.
        limits: memory and sizes of a step; None: by the device.
        padded: True: padded batches even where the model could do without.
        base_path: folder of the base model, against which adapters' notes of their base are checked; None: no check.
        keeps_values: False: no keys and values outlive a step.
        drafter: guesses tokens ahead, which one forward pass then verifies; answers are the same without.

    Attributes:
        model: as given.
        context: prompt and answer together, in tokens; None: unknown.

    Raises:
        ModelError: there is a drafter, and the model needs padded batches.
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
        keeps_values: bool = True,
        drafter: Drafter | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        if rope.kind_of(model.config) == "dynamic" or depths.is_routed(model.config):
            # Frequencies follow the longest text of a batch; routed blocks have a cache of their own length each.
            batch_size, padded = 1, True
        self.batch_size = batch_size
        self._base = base_model_of(model)
        self._decode = decode
        self._pad = 0 if pad_token_id is None else pad_token_id
        self._base_path = base_path
        self.context: int | None = rope.context_of(model.config)
        self._hooks = AdapterHooks(self._base)
        self._request_ids, self._versions = itertools.count(1), itertools.count(1)
        self._beams: deque[Sequence] = deque()
        device = self._base.get_input_embeddings().weight.device
        self._limits, self._drafter = limits or Limits.of(device, cache_bytes(device)), drafter
        if not keeps_values:
            self._limits = self._limits.without_values()
        self._forward = self._choose_forward(padded)
        if not self._forward.joins_midway:
            self._limits = self._limits.without_line()
            if drafter is not None:
                raise ModelError(
                    "this model runs in padded batches, which cannot verify drafts; "
                    "leave prompt_lookup_num_tokens and assistant_model out"
                )
        cache = PrefixCache(self._limits.max_bytes if self._limits.prefix_cache else 0)
        self._schedule = Scheduler(batch_size, self._limits, cache, self._forward.bytes_per_token)
        self._generated = self._drafted = self._accepted = 0

    def _choose_forward(self, padded: bool) -> LineForward | PaddedForward:
        if not padded:
            line = LineForward(self.model, self._hooks)
            if line.works():
                return line
            logger.info("this model cannot run rows end to end over a cache: requests are answered in padded batches")
        return PaddedForward(self.model, self._hooks, self._pad, keeps_values=self._limits.keeps_values)

    def submit(self, request: GenerationRequest) -> int:
        """Takes a request; its work begins with the next steps.

        Raises:
            ModelError: the prompt is empty or leaves no room in the context, or the adapter is not known.
        """
        budget = budget_of(request, self.context)
        self._refuse_unknown(request.adapter)
        adapter = None if request.adapter is None else self._adapters[request.adapter]
        request_id = next(self._request_ids)
        for index in range(request.sampling.n):
            generator = draw.make_generator(request.sampling.seed, index)
            sequence = Sequence(request_id, index, request, budget, generator=generator, adapter=adapter)
            if request.sampling.num_beams > 1:
                self._beams.append(sequence)
            else:
                self._schedule.add(sequence)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Ends a request and frees its place."""
        self._beams = deque(sequence for sequence in self._beams if sequence.request_id != request_id)
        for sequence in self._schedule.cancel(request_id):
            self._release(sequence)

    @torch.inference_mode()
    def step(self) -> list[Delta]:
        """One forward pass: a token for each answer under way, more with drafts; a piece of the prompts that wait.

        A beam search is done whole, before anything else.
        """
        if self._beams:
            return [self._search(self._beams.popleft())]
        chunks = self._with_drafts(self._schedule.plan())
        if not chunks:
            return []
        logits = self._forward.forward(chunks)
        for chunk in chunks:
            chunk.sequence.n_cached = chunk.end
        deltas = self._extend([chunk for chunk in chunks if chunk.n_logits], logits)
        for sequence in self._schedule.retire():
            self._release(sequence)
        if not self._limits.keeps_values:
            for chunk in chunks:
                chunk.sequence.n_cached = 0
        self._generated += sum(len(delta.token_ids) for delta in deltas)
        return deltas

    def _release(self, sequence: Sequence) -> None:
        self._forward.release(sequence)
        if self._drafter is not None:
            self._drafter.release(sequence)

    def _with_drafts(self, chunks: list[Chunk]) -> list[Chunk]:
        """The same chunks, those of answers under way with guesses behind them, no more than a step may read."""
        rows = [chunk.sequence for chunk in chunks if chunk.is_last and chunk.sequence.answer]
        if self._drafter is None or not rows:
            return chunks
        share = (self._limits.chunk or DRAFTED) // len(rows)
        guesses = self._drafter.draft(rows, [min(share, row.budget - len(row.answer) - 1) for row in rows])
        drafts = {id(row): tuple(guess) for row, guess in zip(rows, guesses, strict=True)}
        self._drafted += sum(map(len, guesses))
        return [replace(chunk, draft=drafts.get(id(chunk.sequence), ())) for chunk in chunks]

    def _extend(self, chunks: list[Chunk], logits: torch.Tensor) -> list[Delta]:
        """The next tokens of each chunk's sequence, from `n_logits` rows of (N, V) each."""
        if not chunks:
            return []
        best: list[int] = logits.argmax(dim=-1).tolist()
        deltas, place = [], 0
        for chunk in chunks:
            rows = slice(place, place + chunk.n_logits)
            place = rows.stop
            deltas.append(self._verify(chunk, logits[rows], best[rows]))
        return deltas

    def _verify(self, chunk: Chunk, logits: torch.Tensor, best: list[int]) -> Delta:
        """Tokens are chosen as ever; as long as they are those of the draft, the next logits are right, too.

        A drafted token comes with the model's own probability for it, and another one with the probability that is
        left: the rejection sampling of arXiv 2211.17192 for a draft without chance. Even the draws are the same.
        """
        sequence = chunk.sequence
        made = [self._next(sequence, logits[0], best[0])]
        for guess, row, top in zip(chunk.draft, logits[1:], best[1:], strict=True):
            if sequence.finish_reason or sequence.answer[-1] != guess:
                break
            sequence.n_cached += 1
            made.append(self._next(sequence, row, top))
        if chunk.draft:
            n_accepted = sequence.n_cached - chunk.end
            self._accepted += n_accepted
            sequence.n_trusted = trust(len(chunk.draft), n_accepted)
        return joined(made)

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
            delta = beam_search(self.model, sequence, self._pad, self._decode, keeps_values=self._limits.keeps_values)
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
            cache_bytes=schedule.n_bytes + (self._drafter.n_bytes if self._drafter else 0),
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
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
        self._refuse_unknown(adapter)
        chosen = None if adapter is None else self._adapters[adapter]
        yield from PromptScorer(self._forward, self.batch_size, chosen).score(requests)

    # ---- adapters

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

    def _left(self, adapter: LiveAdapter) -> None:
        self._schedule.forget(adapter.version)
