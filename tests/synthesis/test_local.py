"""A model of our own engine as generator: what it is asked with, and that the same call is answered the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError
from tunesmith.core.types import Message
from tunesmith.data.template import load_template
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.opening import OpenModel
from tunesmith.recipes import make as recipe
from tunesmith.synthesis import counting, local
from tunesmith.synthesis.calls import Call, CallFailedError
from tunesmith.synthesis.local import LocalModel

CONFIG = RunConfig.from_dict({"model_name_or_path": "m", "top_k": 7}, command="data make")
CALL = Call((Message("user", "the lazy dog"),), "m", 0.5, 0.9, 40, opening="Question: Why")


@pytest.fixture
def opened(tiny_tokenizer: Any) -> OpenModel:
    form = ChatFormat(load_template("chatml"), tiny_tokenizer, end_token_ids=(2,))
    answer = tiny_tokenizer(" is it?\nAnswer: It is a dog, the lazy one.", add_special_tokens=False)["input_ids"]
    engine = FakeEngine(lambda request: [*answer, 2], context=2000, decode=tiny_tokenizer.decode)
    return OpenModel(engine, form)


def ask(opened: OpenModel, *calls: Call) -> list[Any]:
    async def work() -> list[Any]:
        model = LocalModel(opened, CONFIG, 4)
        try:
            return list(await asyncio.gather(*map(model.ask, calls), return_exceptions=True))
        finally:
            await model.close()

    return asyncio.run(work())


def test_a_call_reaches_the_engine_as_it_is(opened: OpenModel, tiny_tokenizer: Any) -> None:
    first, second, third = ask(opened, CALL, CALL, replace(CALL, attempt=2))
    assert first.text == "Question: Why is it?\nAnswer: It is a dog, the lazy one."
    assert first.completion_tokens > 5
    assert first == second
    assert third.text == first.text
    requests = opened.engine.requests
    assert tiny_tokenizer.decode(requests[0].prompt_ids).endswith("<|im_start|>assistant\nQuestion: Why")
    sampling = requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens) == (0.5, 0.9, 7, 40)
    seeds = [request.sampling.seed for request in requests]
    assert len(set(seeds)) == 2, "the seed follows from the call"
    assert first.prompt_tokens == len(requests[0].prompt_ids)


def test_a_prompt_that_is_too_long_fails_alone(opened: OpenModel) -> None:
    long = replace(CALL, messages=(Message("user", "dog " * 3000),))
    good, bad = ask(opened, CALL, long)
    assert good.text.startswith("Question: Why")
    assert isinstance(bad, CallFailedError)
    assert "does not fit" in bad.reason


def test_a_data_set_by_a_local_model(opened: OpenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "open_model", lambda config, **options: opened)
    monkeypatch.setattr(counting, "make_counter", lambda config: counting.Estimate())
    Path("dog.txt").write_text("It is a dog, the lazy one. The fox jumps over it.", encoding="utf-8")
    settings = {"model_name_or_path": "m", "input_file_path": "dog.txt", "entries_per_chunk": 2, "output_dir": "out"}
    told = recipe.make(RunConfig.from_dict(settings, command="data make"))
    assert "requested 2 = kept 2 + failed 0" in told
    shown = opened.form.tokenizer.decode(opened.engine.requests[0].prompt_ids)
    assert shown.count("Question: ") == 4, "three examples and the opening"
    assert shown.count("It is a dog, the lazy one.") == 1


def test_what_text_replies_cannot_hold_is_refused() -> None:
    Path("dog.txt").write_text("dog", encoding="utf-8")
    settings = {"model_name_or_path": "m", "input_file_path": "dog.txt"}
    for more in ({"turns": 2}, {"entries_per_call": 4}):
        with pytest.raises(ConfigError, match="needs reply_format: json"):
            RunConfig.from_dict(settings | more, command="data make", rules=True)
        RunConfig.from_dict(settings | more | {"reply_format": "json"}, command="data make", rules=True)
