"""The engine over a transformers or peft model: left-padded batches, own decode loop, finished rows leave the batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.inference.batching import sorted_batches
from tunesmith.inference.engine import Completion, Delta, FinishReason, GenerationRequest
from tunesmith.inference.sampling import choose, make_generator

Decode = Callable[[list[int]], str]


@dataclass(slots=True)
class _Row:
    """One request under way."""

    index: int
    request: GenerationRequest
    budget: int
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    end_token_id: int | None = None

    def accept(self, token_id: int, decode: Decode | None) -> None:
        """Takes one token and finds out whether the answer is finished."""
        if token_id in self.request.end_token_ids:
            self.finish_reason, self.end_token_id = "stop", token_id
            return
        self.token_ids.append(token_id)
        stop = self.request.sampling.stop
        # A stop text can be no longer than its characters in tokens, plus one that it begins inside of.
        if stop and decode is not None:
            recent = decode(self.token_ids[-(max(map(len, stop)) + 1) :])
            if any(text in recent for text in stop):
                self.finish_reason = "stop"
                return
        if len(self.token_ids) >= self.budget:
            self.finish_reason = "length"

    @property
    def completion(self) -> Completion:
        return Completion(tuple(self.token_ids), self.finish_reason or "length", self.end_token_id)


@dataclass(slots=True)
class _Batch:
    """Rows that step together.

    Attributes:
        rows: those not finished, in the order of the cache's batch dimension.
        mask: (B, T) 1 for real tokens; grows by one column a step.
        cache: keys and values of transformers.
        logits: (B, V) of the last position.
    """

    rows: list[_Row]
    mask: torch.Tensor
    cache: Any
    logits: torch.Tensor


class HuggingFaceEngine:
    """Generates with a causal language model. Not thread-safe.

    Args:
        model: a transformers or peft model; is put into eval mode.
        pad_token_id: fills the left of shorter prompts; any valid id does, it is masked.
        batch_size: rows that step together at most.
        decode: token ids to text; needed for stop texts only.
    """

    def __init__(
        self, model: Any, *, pad_token_id: int | None = None, batch_size: int = 8, decode: Decode | None = None
    ) -> None:
        self.model = model.eval()
        self.batch_size = batch_size
        self._pad = 0 if pad_token_id is None else pad_token_id
        self._decode = decode
        text_config = model.config.get_text_config()
        self.context: int | None = getattr(text_config, "max_position_embeddings", None)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._last_only = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
        )

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Yields (index, completion) as answers finish; prompts of similar length go together.

        Raises:
            ModelError: a prompt is empty or leaves no room in the model's context.
        """
        rows = [self._row(index, request) for index, request in enumerate(requests)]
        for indices in sorted_batches([len(request.prompt_ids) for request in requests], self.batch_size):
            members = [rows[index] for index in indices]
            for row in members:
                if row.request.sampling.num_beams > 1:
                    yield row.index, self._beam_search(row)
            members = [row for row in members if row.request.sampling.num_beams <= 1]
            for row, _ in self._decode_rows(members):
                if row.finish_reason:
                    yield row.index, row.completion

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Yields one delta a token; beam search comes in one piece.

        Raises:
            ModelError: the prompt is empty or leaves no room in the model's context.
        """
        row = self._row(0, request)
        if request.sampling.num_beams > 1:
            done = self._beam_search(row)
            yield Delta(done.token_ids, done.finish_reason, done.end_token_id)
            return
        for _, token_ids in self._decode_rows([row]):
            yield Delta(token_ids, row.finish_reason, row.end_token_id)

    def _row(self, index: int, request: GenerationRequest) -> _Row:
        n_prompt = len(request.prompt_ids)
        budget = request.sampling.budget(n_prompt)
        if n_prompt == 0:
            raise ModelError("a prompt without tokens cannot be answered")
        if self.context is not None:
            if n_prompt >= self.context:
                raise ModelError(f"the prompt has {n_prompt} tokens, the model's context holds {self.context}")
            budget = min(budget, self.context - n_prompt)
        return _Row(index, request, budget, make_generator(request.sampling.seed))

    def _decode_rows(self, rows: list[_Row]) -> Iterator[tuple[_Row, tuple[int, ...]]]:
        """Steps rows until all are finished; yields each row after each of its tokens, with what the token added."""
        if not rows:
            return
        batch = self._prefill(rows)
        while True:
            next_ids = self._choose(batch)
            for row, token_id in zip(batch.rows, next_ids, strict=True):
                before = len(row.token_ids)
                row.accept(token_id, self._decode)
                yield row, tuple(row.token_ids[before:])
            kept = [position for position, row in enumerate(batch.rows) if row.finish_reason is None]
            if not kept:
                return
            self._step(batch, kept, [next_ids[position] for position in kept])

    @torch.inference_mode()
    def _prefill(self, rows: list[_Row]) -> _Batch:
        width = max(len(row.request.prompt_ids) for row in rows)
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for position, row in enumerate(rows):
            prompt = torch.tensor(list(row.request.prompt_ids))
            ids[position, width - len(prompt) :] = prompt
            mask[position, width - len(prompt) :] = 1
        device = self.model.device
        ids, mask = ids.to(device), mask.to(device)
        output = self._forward(ids, mask, None)
        return _Batch(rows, mask, output.past_key_values, output.logits[:, -1])

    @torch.inference_mode()
    def _choose(self, batch: _Batch) -> list[int]:
        if all(row.request.sampling.is_greedy and row.request.sampling.repetition_penalty == 1.0 for row in batch.rows):
            return [int(i) for i in batch.logits.argmax(dim=-1)]
        return [
            choose(logits, row.request.sampling, [*row.request.prompt_ids, *row.token_ids], row.generator)
            for logits, row in zip(batch.logits, batch.rows, strict=True)
        ]

    @torch.inference_mode()
    def _step(self, batch: _Batch, kept: list[int], next_ids: list[int]) -> None:
        """Drops finished rows and runs the model on the tokens just chosen."""
        if len(kept) < len(batch.rows):
            indices = torch.tensor(kept, device=batch.mask.device)
            batch.rows = [batch.rows[position] for position in kept]
            batch.mask = batch.mask[indices]
            batch.cache.batch_select_indices(indices)
        batch.mask = torch.cat([batch.mask, batch.mask.new_ones((len(kept), 1))], dim=1)
        ids = torch.tensor(next_ids, device=batch.mask.device).unsqueeze(1)
        output = self._forward(ids, batch.mask, batch.cache)
        batch.cache, batch.logits = output.past_key_values, output.logits[:, -1]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> Any:
        """One forward pass; positions count real tokens only, so that padding changes nothing."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        # Without padding the mask says nothing, and attention kernels are faster when there is none.
        attention_mask = None if bool(mask.all()) else mask
        return self.model(
            input_ids=ids,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )

    @torch.inference_mode()
    def _beam_search(self, row: _Row) -> Completion:
        sampling, n_prompt = row.request.sampling, len(row.request.prompt_ids)
        ids = torch.tensor([list(row.request.prompt_ids)], device=self.model.device)
        choice = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        output = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=not sampling.is_greedy,
            **({} if sampling.is_greedy else choice),
            num_beams=sampling.num_beams,
            max_new_tokens=row.budget,
            repetition_penalty=sampling.repetition_penalty,
            length_penalty=sampling.length_penalty,
            eos_token_id=list(row.request.end_token_ids) or None,
            pad_token_id=self._pad,
        )
        for token_id in output[0, n_prompt:].tolist():
            row.accept(token_id, self._decode)
            if row.finish_reason:
                break
        return row.completion
