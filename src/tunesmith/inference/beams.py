"""Beam search: transformers' own, one request at a time, done whole."""

from __future__ import annotations

from typing import Any

import torch

from tunesmith.inference.engine import Delta
from tunesmith.inference.sequence import Sequence
from tunesmith.inference.under_way import Decode


def beam_search(
    model: Any, sequence: Sequence, pad_token_id: int, decode: Decode | None, *, keeps_values: bool = True
) -> Delta:
    """The best beam's answer as one delta; penalties other than repetition, biases and logprobs are not for beams."""
    sampling = sequence.request.sampling
    ids = torch.from_numpy(sequence.prompt)[None].to(model.device)
    choice = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=not sampling.is_greedy,
        **({} if sampling.is_greedy else choice),
        num_beams=sampling.num_beams,
        max_new_tokens=sequence.budget,
        repetition_penalty=sampling.repetition_penalty,
        length_penalty=sampling.length_penalty,
        eos_token_id=list(sequence.request.end_token_ids) or None,
        pad_token_id=pad_token_id,
        use_cache=keeps_values,
    )
    for token_id in output[0, ids.shape[1] :].tolist():
        sequence.accept(token_id, decode)
        if sequence.finish_reason:
            break
    reason = sequence.finish_reason or "length"
    return Delta(tuple(sequence.answer), reason, sequence.end_token_id, sequence.request_id, sequence.index)
