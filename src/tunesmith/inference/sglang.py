"""SGLang as an engine: its server processes behind our interface. The only file that knows SGLang.

It needs a GPU, so what runs here without one is the mapping of keys and requests, against a stub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError
from tunesmith.core.optional import require
from tunesmith.inference.chat import decode
from tunesmith.inference.engine import Delta, GenerationRequest, TokenLogprob, joined
from tunesmith.inference.engine import SamplingParams as Sampling
from tunesmith.inference.outside import LoraRoom, OutsideEngine, Work
from tunesmith.inference.sampling import seed_of
from tunesmith.inference.serving_adapters import add_configured, check_configured, find_configured
from tunesmith.inference.stored_base import Base, check_tokens, find_base
from tunesmith.inference.under_way import Decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.opening import Opened

MAX_LORAS, MAX_LOADED_LORAS, MAX_RANK = 4, 64, 64
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class SglangEngine(OutsideEngine):
    """Generates with SGLang. Not thread-safe.

    Args:
        engine: an `sglang.Engine`.
        arguments: it was made with.
        decode: token ids to text; needed for stop texts only.
        base: the base model's folder, against which adapters' notes of their base are checked; None: no check.
    """

    def __init__(
        self, engine: Any, arguments: dict[str, Any], *, decode: Decode | None = None, base: Path | None = None
    ) -> None:
        room = None
        if arguments.get("enable_lora"):
            room = LoraRoom(arguments["max_lora_rank"], "max_lora_rank in sglang_config", arguments["max_loaded_loras"])
        super().__init__(
            "sglang",
            context=arguments["context_length"],
            slots=arguments["max_running_requests"],
            decode=decode,
            base=base,
            lora=room,
        )
        self._engine = engine
        self._has_seeds = bool(arguments.get("enable_deterministic_inference"))
        self._arrived: asyncio.Queue[tuple[Work, dict[str, Any] | BaseException]] = asyncio.Queue()
        self._readers: dict[str, asyncio.Task[None]] = {}

    def _check(self, request: GenerationRequest) -> None:
        if request.constraint is not None:
            raise ModelError("infer_backend sglang cannot hold answers to a form (JSON, demanded calls, strict tools)")
        if request.sampling.seed is not None and not request.sampling.is_greedy and not self._has_seeds:
            raise ModelError("infer_backend sglang: seeds need enable_deterministic_inference, which is switched off")

    def _send(self, work: Work) -> None:
        self._readers[work.key] = self._engine.loop.create_task(self._read(work))

    async def _read(self, work: Work) -> None:
        """Puts what comes of one answer into the queue; runs while a step waits."""
        sampling = work.request.sampling
        try:
            answer = await self._engine.async_generate(
                input_ids=list(work.request.prompt_ids),
                sampling_params=request_parameters(work),
                stream=True,
                rid=work.key,
                return_logprob=sampling.logprobs is not None,
                top_logprobs_num=sampling.logprobs or 0,
                lora_path=_lora_name(work.version) if work.version else None,
            )
            async for piece in answer:
                self._arrived.put_nowait((work, piece))
        except Exception as error:  # of any kind: the step raises it
            self._arrived.put_nowait((work, error))

    def _abort(self, keys: list[str]) -> None:
        for key in keys:
            self._engine.tokenizer_manager.abort_request(rid=key)
        # A reader that has not begun would ask for its answer after all.
        readers = [self._readers[key] for key in keys]
        for reader in readers:
            reader.cancel()
        self._engine.loop.run_until_complete(asyncio.wait(readers))

    def _receive(self) -> list[Delta]:
        pieces = [self._engine.loop.run_until_complete(self._arrived.get())]
        while not self._arrived.empty():
            pieces.append(self._arrived.get_nowait())
        made: dict[str, list[Delta]] = {}
        for work, piece in pieces:
            if work.key not in self._works or work.finish_reason:
                continue
            if isinstance(piece, BaseException):
                raise piece
            made.setdefault(work.key, []).extend(self._made(work, piece))
        return [joined(deltas) for deltas in made.values() if deltas]

    def _made(self, work: Work, piece: dict[str, Any]) -> list[Delta]:
        """SGLang gives all tokens so far, or new ones alone, as it was started; their number says which are new."""
        notes = piece["meta_info"]
        n_new = notes["completion_tokens"] - len(work.answer)
        ids = piece["output_ids"][len(piece["output_ids"]) - n_new :] if n_new else []
        logprobs = [] if work.request.sampling.logprobs is None else _logprobs(notes, n_new)
        ended = (notes.get("finish_reason") or {}).get("type")
        if ended not in (None, "stop", "length"):
            raise RuntimeError(f"SGLang ended a request: {notes['finish_reason']}")
        return list(self._take(work, ids, logprobs, ended, notes.get("cached_tokens") or 0))

    def _done(self, work: Work) -> None:
        self._readers.pop(work.key)

    def _load_lora(self, version: int, folder: Path) -> None:
        answer = self._engine.load_lora_adapter(_lora_name(version), str(folder))
        if not answer.success:
            raise ValueError(answer.error_message)

    def _unload_lora(self, version: int) -> None:
        self._engine.unload_lora_adapter(_lora_name(version))


def _lora_name(version: int) -> str:
    return f"version-{version}"


def request_parameters(work: Work) -> dict[str, Any]:
    """Our sampling in SGLang's words; end tokens are those of the request alone."""
    request, sampling = work.request, work.request.sampling
    parameters = {
        **_choice(sampling),
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_new_tokens": work.budget,
        "stop_token_ids": list(request.end_token_ids),
        "ignore_eos": True,
        "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias} or None,
    }
    if sampling.seed is not None:
        parameters["sampling_seed"] = seed_of(sampling.seed, work.index)
    return parameters


def _choice(sampling: Sampling) -> dict[str, Any]:
    if sampling.is_greedy:
        return {"temperature": 0.0}
    top_k = sampling.top_k if sampling.top_k > 0 else -1
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": top_k}


def _logprobs(notes: dict[str, Any], n_new: int) -> list[TokenLogprob]:
    """Of the newest tokens, out of (log-probability, token id, text) entries."""
    chosen: Sequence[Any] = notes["output_token_logprobs"]
    likeliest: Sequence[Any] = notes.get("output_top_logprobs") or [()] * len(chosen)
    newest = zip(chosen[len(chosen) - n_new :], likeliest[len(likeliest) - n_new :], strict=True)
    return [
        TokenLogprob(entry[1], entry[0], tuple((other[1], other[0]) for other in others or ()))
        for entry, others in newest
    ]


def engine_arguments(config: RunConfig, base: Base, batch_size: int, *, lora: bool) -> dict[str, Any]:
    """Arguments of `sglang.Engine` for a configuration; `sglang_config` has the last word."""
    arguments: dict[str, Any] = {
        "model_path": str(base.folder),
        "dtype": base.dtype,
        "trust_remote_code": config.trust_remote_code,
        "context_length": base.context(config.sglang_maxlen),
        "max_running_requests": batch_size,
        "mem_fraction_static": config.sglang_mem_fraction,
        "tp_size": base.n_gpus if config.sglang_tp_size == -1 else config.sglang_tp_size,
        "random_seed": base.seed,
        "skip_tokenizer_init": True,
        # Without it a seed decides nothing: answers would depend on who shares the batch.
        "enable_deterministic_inference": True,
        "log_level": "error",
    }
    if lora:
        arguments |= {
            "enable_lora": True,
            "lora_backend": config.sglang_lora_backend,
            "max_lora_rank": MAX_RANK,
            "max_loras_per_batch": MAX_LORAS,
            "max_loaded_loras": MAX_LOADED_LORAS,
            "lora_target_modules": list(_LINEAR),
        }
    return arguments | (config.sglang_config or {})


def open_sglang(config: RunConfig, tokenizer: PreTrainedTokenizerBase, batch_size: int, keep_apart: bool) -> Opened:
    """Starts SGLang for a configuration; adapters are always live.

    Raises:
        MissingPackageError: SGLang is not installed.
        ModelError: the model, an adapter or a setting is not for SGLang.
    """
    from tunesmith.inference.opening import Opened

    sglang = require("sglang", extra="sglang", purpose="infer_backend: sglang")
    if config.sglang_tp_size == 0:
        raise ModelError("sglang_tp_size: 0 GPUs cannot hold a model; give their number, or -1 for all")
    found = find_configured(config)
    base = find_base(config)
    check_tokens(base, tokenizer)
    check_configured(found, base.folder, force=config.force_base)
    arguments = engine_arguments(config, base, batch_size, lora=keep_apart or bool(found))
    try:
        started = sglang.Engine(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"SGLang does not start with this model and these settings: {error}") from error
    engine = SglangEngine(
        started,
        arguments,
        decode=lambda ids: decode(tokenizer, ids, True),
        base=None if config.force_base else base.folder,
    )
    adapter, adapters = add_configured(engine, found) if found else (None, {})
    return Opened(engine, base.generation_config, adapter, adapters)
