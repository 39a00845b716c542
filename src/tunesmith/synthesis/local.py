"""A generator that is a model of our own engine; many calls share its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import OpenModel, open_model
from tunesmith.inference.runner import EngineFailedError, EngineRunner
from tunesmith.synthesis.calls import Call, CallFailedError, Reply

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


class LocalModel:
    """Asks a model in this process.

    Args:
        opened: engine and chat format.
        config: its generation keys hold for every call, but for what the call says itself.
        concurrency: calls under way together, at most.
    """

    def __init__(self, opened: OpenModel, config: RunConfig, concurrency: int) -> None:
        self.name = config.model_name_or_path or ""
        self._form = opened.form
        self._adapter = opened.adapter
        self._config = config
        self._runner = EngineRunner(opened.engine, max_queue=8 * concurrency)

    async def ask(self, call: Call) -> Reply:
        """The answer; the same call gives the same answer, whatever runs beside it.

        Raises:
            CallFailedError: the prompt leaves no room in the model's context, or the engine failed.
        """
        ids = self._form.prompt_ids(call.messages)
        if call.opening:
            ids = [*ids, *self._form.tokenizer(call.opening, add_special_tokens=False)["input_ids"]]
        request = GenerationRequest(ids, self._sampling(call), self._form.end_token_ids, self._adapter)
        try:
            (completion,) = await self._runner.submit(request).completions()
        except ModelError as error:
            raise CallFailedError("the prompt does not fit into the model's context", str(error)) from error
        except EngineFailedError as error:
            raise CallFailedError("the engine failed", str(error)) from error
        text = call.opening + self._form.text_of(completion, stop=request.sampling.stop)
        return Reply(text, len(ids), len(completion.token_ids), completion.finish_reason == "length")

    def _sampling(self, call: Call) -> SamplingParams:
        settings = self._config.replace(temperature=call.temperature, top_p=call.top_p, max_new_tokens=call.max_tokens)
        return SamplingParams.from_config(settings, seed=int(call.key[:8], 16))

    async def close(self) -> None:
        """Ends the engine's thread."""
        self._runner.close(drain=False, timeout=10.0)


def open_local(config: RunConfig) -> LocalModel:
    """Loads `model_name_or_path`.

    Raises:
        TunesmithError: the model, its adapter or its template cannot be used.
    """
    return LocalModel(open_model(config, batch_size=config.concurrency), config, config.concurrency)
