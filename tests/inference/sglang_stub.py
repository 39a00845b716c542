"""A module that looks like SGLang from our side: answers of a function, a piece of one token at a time, all so far."""

from __future__ import annotations

import asyncio
import atexit
import importlib.machinery
import math
import types
from typing import Any

from tunesmith.inference.engine import GenerationRequest, SamplingParams


class Engine:
    """Like `sglang.Engine`.

    Attributes:
        made: what each engine was made with, newest last.
        asked: keyword arguments of each request.
    """

    made: list[dict[str, Any]] = []  # noqa: RUF012 - a test clears it
    answer: Any = None
    loop = asyncio.new_event_loop()  # of all engines, closed once

    def __init__(self, **arguments: Any) -> None:
        Engine.made.append(arguments)
        self.tokenizer_manager = self
        self.asked: list[dict[str, Any]] = []
        self.loras: dict[str, str] = {}
        self.aborted: list[str] = []
        self._slots = asyncio.Semaphore(arguments["max_running_requests"])

    async def async_generate(self, **asked: Any) -> Any:
        self.asked.append(asked)
        if asked["lora_path"] is not None and asked["lora_path"] not in self.loras:
            raise ValueError("no such LoRA")
        return self._pieces(asked)

    async def _pieces(self, asked: dict[str, Any]) -> Any:
        settings, ids = asked["sampling_params"], []
        if asked["rid"] in self.aborted:
            return
        async with self._slots:
            seed = settings.get("sampling_seed")
            coming = iter(Engine.answer(GenerationRequest(asked["input_ids"], SamplingParams(seed=seed))))
            finish = None
            while finish is None:
                await asyncio.sleep(0)
                if asked["rid"] in self.aborted:
                    yield self._piece(asked, ids, {"type": "abort", "message": "aborted"})
                    return
                ids.append(next(coming))
                if ids[-1] in settings["stop_token_ids"]:
                    finish = {"type": "stop", "matched": ids[-1]}
                elif len(ids) >= settings["max_new_tokens"]:
                    finish = {"type": "length", "length": len(ids)}
                yield self._piece(asked, ids, finish)

    def _piece(self, asked: dict[str, Any], ids: list[int], finish: Any) -> dict[str, Any]:
        notes = {"completion_tokens": len(ids), "finish_reason": finish, "cached_tokens": 0}
        if asked["return_logprob"]:
            half, count = math.log(0.5), asked["top_logprobs_num"]
            notes["output_token_logprobs"] = [(half, i, None) for i in ids]
            notes["output_top_logprobs"] = [[(half, i + k, None) for k in range(count)] for i in ids]
        return {"output_ids": list(ids), "meta_info": notes}

    def abort_request(self, rid: str) -> None:
        self.aborted.append(rid)

    def load_lora_adapter(self, lora_name: str, lora_path: str) -> Any:
        self.loras[lora_name] = lora_path
        return types.SimpleNamespace(success=True, error_message="")

    def unload_lora_adapter(self, lora_name: str) -> Any:
        del self.loras[lora_name]
        return types.SimpleNamespace(success=True, error_message="")


atexit.register(Engine.loop.close)


def module() -> types.ModuleType:
    """To be put into sys.modules."""
    stub = types.ModuleType("sglang")
    stub.__spec__ = importlib.machinery.ModuleSpec("sglang", None)
    stub.Engine = Engine  # type: ignore[attr-defined]
    return stub
