"""The official client drives the server over real HTTP."""

from __future__ import annotations

import math

import openai
import pytest
from tests.serving.conftest import MODEL, Stage


def test_an_answer(stage: Stage) -> None:
    answer = stage.ask("Who are you?")
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.created > 1_700_000_000
    choice = answer.choices[0]
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == ("assistant", "Hello!", None)
    n_answer = len(stage.tokenizer("Hello!")["input_ids"]) + 1  # the end token is made, too
    assert answer.usage.prompt_tokens == len(stage.seen.prompt_ids)
    assert answer.usage.completion_tokens == n_answer
    assert answer.usage.total_tokens == len(stage.seen.prompt_ids) + n_answer


def test_prompt_ids_are_those_of_training(stage: Stage) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "<|im_end|>"},
    ]
    stage.ask(messages=messages)
    plain = stage.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(stage.seen.prompt_ids[:20]) == plain[:20]
    assert stage.seen.prompt_ids.count(2) == 4  # what a user writes never becomes a control token
    assert stage.seen.end_token_ids == (2,)


def test_a_stream(stage: Stage) -> None:
    stage.says("Grüße, 你好 🙂 the quick fox")
    chunks = list(stage.ask(stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Grüße, 你好 🙂 the quick fox"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert all(chunk.usage is None for chunk in chunks)
    assert len(chunks) > 5


def test_usage_in_a_stream(stage: Stage) -> None:
    whole = stage.ask().usage
    chunks = list(stage.ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.model_dump() == whole.model_dump()
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_the_length_limit(stage: Stage, stream: bool) -> None:
    stage.says("one two three four five six")
    for field in ("max_tokens", "max_completion_tokens"):
        answer = stage.ask(stream=stream, **{field: 3})
        reason = list(answer)[-1].choices[0].finish_reason if stream else answer.choices[0].finish_reason
        assert reason == "length"
        assert stage.seen.sampling.max_new_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [" three", [" nine", " three"]])
def test_stop_texts(stage: Stage, stream: bool, stop: str | list[str]) -> None:
    stage.says("one two three four")
    answer = stage.ask(stream=stream, stop=stop)
    if stream:
        chunks = list(answer)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == "one two"
        assert answer.choices[0].finish_reason == "stop"


def test_several_answers(stage: Stage) -> None:
    answer = stage.ask(n=3, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Hello!"}
    assert stage.seen.sampling.n == 3
    texts = ["", "", ""]
    for chunk in stage.ask(n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hello!"] * 3


def test_sampling_fields_reach_the_engine(stage: Stage) -> None:
    stage.ask(
        temperature=0.3,
        top_p=0.8,
        seed=7,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias={"5": -100},
        user="me",
        extra_body={"top_k": 9, "repetition_penalty": 1.05},
    )
    sampling = stage.seen.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.3, 0.8, 9, 7)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-0.5, 0.25)
    assert sampling.repetition_penalty == 1.05
    assert sampling.logit_bias == ((5, -100.0),)
    stage.ask(temperature=0)
    assert stage.seen.sampling.is_greedy
    stage.ask(presence_penalty=0)  # an error 500 elsewhere
    assert stage.seen.sampling.repetition_penalty == 1.0


def test_logprobs(stage: Stage) -> None:
    answer = stage.ask(logprobs=True, top_logprobs=2)
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == "Hello!"
    assert all(entry.logprob == pytest.approx(math.log(0.5)) for entry in entries)
    assert all(len(entry.top_logprobs) == 2 and entry.bytes == list(entry.token.encode()) for entry in entries)
    streamed = [chunk.choices[0].logprobs for chunk in stage.ask(logprobs=True, stream=True)]
    tokens = [entry.token for piece in streamed if piece for entry in piece.content]
    assert tokens == [entry.token for entry in entries]
    assert stage.ask().choices[0].logprobs is None


def test_text_parts_are_joined(stage: Stage) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    stage.ask(messages=[{"role": "system", "content": parts}, {"role": "user", "content": parts}])
    assert stage.prompt.count("one two") == 2


def test_the_developer_speaks_as_the_system(stage: Stage) -> None:
    stage.ask(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert "system\nBe brief." in stage.prompt


def test_text_completions(stage: Stage) -> None:
    answer = stage.client.completions.create(model=MODEL, prompt="the quick")
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert list(stage.seen.prompt_ids) == stage.tokenizer("the quick")["input_ids"]
    answer = stage.client.completions.create(model=MODEL, prompt=["a", "b"], n=2, echo=True, max_tokens=50)
    assert [choice.text for choice in answer.choices] == ["aHello!", "aHello!", "bHello!", "bHello!"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    stage.client.completions.create(model=MODEL, prompt=[5, 6, 7])
    assert list(stage.seen.prompt_ids) == [5, 6, 7]
    stage.client.completions.create(model=MODEL, prompt=[[5, 6], [8]])
    assert list(stage.seen.prompt_ids) == [8]


def test_text_completions_stream_and_logprobs(stage: Stage) -> None:
    chunks = list(stage.client.completions.create(model=MODEL, prompt="a", stream=True, echo=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "aHello!"
    assert chunks[-1].choices[0].finish_reason == "stop"
    answer = stage.client.completions.create(model=MODEL, prompt="a", logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == "Hello!"
    assert logprobs.text_offset[0] == 0
    assert len(logprobs.token_logprobs) == len(logprobs.tokens) == len(logprobs.top_logprobs)


def test_models(stage: Stage) -> None:
    listed = stage.client.models.list()
    assert [model.id for model in listed.data] == [MODEL]
    assert stage.client.models.retrieve(MODEL).owned_by == "tunesmith"
    with pytest.raises(openai.NotFoundError, match="did you mean 'org/tiny-model'"):
        stage.ask(model="org/tiny-modle")


def test_reasoning_is_parted_from_the_answer(qwen_stage: Stage) -> None:
    qwen_stage.says("<think>\nWho am I?\nA fox.\n</think>\n\nI am a fox.")
    message = qwen_stage.ask().choices[0].message
    assert message.content == "I am a fox."
    assert message.reasoning_content == "Who am I?\nA fox."
    thought, content = "", ""
    for chunk in qwen_stage.ask(stream=True):
        delta = chunk.choices[0].delta
        thought += getattr(delta, "reasoning_content", None) or ""
        content += delta.content or ""
    assert (thought, content) == ("Who am I?\nA fox.", "I am a fox.")


def test_thinking_can_be_turned_off(qwen_stage: Stage) -> None:
    qwen_stage.says("I am a fox.")
    message = qwen_stage.ask(extra_body={"chat_template_kwargs": {"enable_thinking": False}}).choices[0].message
    assert message.content == "I am a fox."
    assert not hasattr(message, "reasoning_content")
    assert qwen_stage.prompt.endswith("<think>\n\n</think>\n\n")
    qwen_stage.ask()
    assert qwen_stage.prompt.endswith("assistant\n")


def test_a_thought_that_was_cut_off(qwen_stage: Stage) -> None:
    qwen_stage.says("<think>\nWho am I? I am a model who jumps over")
    choice = qwen_stage.ask(max_tokens=16).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.content == ""
    assert choice.message.reasoning_content.startswith("Who am I?")
