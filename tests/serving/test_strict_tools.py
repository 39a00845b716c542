"""`strict` where the model may answer or call: calls fit, text is left alone, whatever the model would rather say."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs
import openai
import pytest
from tests.serving.conftest import END, Stage, make_form, make_stage_parts, on_stage, served

from tunesmith.core.types import ToolCall
from tunesmith.data.tools import ToolFormat, load_tool_format
from tunesmith.inference.answer import News
from tunesmith.inference.engine import Delta, GenerationRequest
from tunesmith.serving.constraint import constrained
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.free_text import LateGrammar
from tunesmith.serving.requests import ChatRequest
from tunesmith.serving.vocabulary import Vocabulary

FORMATS = ["qwen", "qwen3", "default", "llama3", "mistral", "glm4", "bailing_v2", "minimax1", "phi4_mini"]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Köln", "Bonn"]}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
STRICT = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
FREE = {"type": "function", "function": {"name": "clock", "parameters": SCHEMA}}
FITS = jsonschema_rs.validator_for(SCHEMA)
BROKEN: list[Any] = [
    {"city": "Paris", "days": 3},
    {"city": "Köln"},
    {"days": "three", "city": "Bonn"},
    {},
    {"city": "Köln", "days": 3, "more": [1]},
    {"city": {"name": "Bonn"}, "days": 99},
]
_CLOSING = (b'"', b"}", b"]", b'"}', b"}]", b"1", b"\n")


def body(**fields: Any) -> ChatRequest:
    fields = {"tools": [FREE, STRICT], **fields}
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields})


def said_under(request: GenerationRequest, ids: Sequence[int], vocabulary: Vocabulary, seed: int) -> Iterator[int]:
    """What a model says that would rather say `ids`: where it may not, it goes on as chance has it, to an end."""
    rng, said, wanted, is_wilful = random.Random(seed), [], list(ids), True
    while len(said) < 600:
        allowed = request.constraint(said) if request.constraint else None
        token = wanted.pop(0) if wanted else END
        is_wilful = is_wilful and (allowed is None or token in allowed.tolist())
        if not is_wilful:
            choices = [END] if allowed is None or END in allowed.tolist() else allowed.tolist()
            closing = [i for i in choices if vocabulary.by_id.get(i) in _CLOSING]
            token = rng.choice(closing if closing and rng.random() < 0.6 else choices)
        said.append(token)
        yield token
        if token == END:
            return


class Bench:
    """One template without a server: a text that the model would say -> what a client gets."""

    def __init__(self, template: str) -> None:
        self.form = make_form(template)
        self.dialect = Dialect(self.form)
        self.vocabulary = Vocabulary(self.form.tokenizer, (END,), self.dialect.hidden_ids)

    @property
    def format(self) -> ToolFormat:
        return self.dialect.tool_format

    def says(self, text: str, seed: int = 0, **fields: Any) -> News:
        request = body(**fields)
        held, constraint = constrained(request, self.dialect.ask(request), self.format, self.vocabulary)
        assert constraint is not None
        ids = self.form.tokenizer(text, add_special_tokens=False)["input_ids"]
        generation = GenerationRequest(held.ids, constraint=constraint)
        said = list(said_under(generation, ids, self.vocabulary, seed))
        is_whole = said[-1] == END
        delta = Delta(tuple(said[: len(said) - is_whole]), "stop" if is_whole else "length", END if is_whole else None)
        return self.dialect.reader(held, ()).push(delta)

    def calls(self, *calls: tuple[str, Any]) -> str:
        return self.format.calls_text([ToolCall(name, arguments) for name, arguments in calls], False)


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def odd_spellings(text: str, rng: random.Random) -> Iterator[str]:
    """The same call as a model may write it that has its own mind about blanks, order and quotes."""
    yield text.replace(": ", ":").replace(", ", ",")
    yield text.replace(": ", " :  ")
    yield text.replace('"name"', '"n\\u0061me"')
    yield text.replace("weather", "we\\u0061ther")
    yield text.replace("\n", "")
    yield text.replace("Action:", "Action:  ")
    yield text.replace("Action Input: ", "Action Input:")
    for key in ("arguments", "parameters"):
        yield text.replace('{"name"', f'{{"{key}": {{"city": 5}}, "name"')
    yield "[" + text + "]"
    yield "```json\n" + text
    place = rng.randrange(len(text))
    yield text[:place] + rng.choice('{}[]",: \nx') + text[place:]


@pytest.mark.parametrize("bench", FORMATS, indirect=True)
def test_every_strict_call_fits(bench: Bench) -> None:
    """Broken arguments, odd spellings, several calls: what comes out as a call of a strict tool fits its schema."""
    rng = random.Random(7)
    n_calls = 0
    for index, arguments in enumerate(BROKEN):
        plain = bench.calls(("weather", arguments))
        texts = [
            plain,
            "Let me see.\n" + plain,
            bench.calls(("clock", {}), ("weather", arguments)),
            plain + "\n" + plain,
        ]
        texts += odd_spellings(plain, rng)
        for turn, text in enumerate(texts):
            news = bench.says(text, seed=100 * index + turn, parallel_tool_calls=None if turn % 3 else False)
            strict = [call for call in news.calls if call.name == "weather"]
            assert all(FITS.is_valid(call.arguments) for call in strict), (text, news)
            n_calls += bool(strict)
            if turn == 0:
                assert news.finish_reason in ("tool_calls", "length"), (text, news)
    assert n_calls > 8


@pytest.mark.parametrize("bench", FORMATS, indirect=True)
def test_right_calls_come_as_they_were_written(bench: Bench) -> None:
    good, other = ("weather", {"city": "Köln", "days": 3}), ("clock", {"zone": ["any", {"thing": None}]})
    for calls in ((good,), (other,), (good, other), (other, good)):
        news = bench.says("Let me see.\n" + bench.calls(*calls))
        assert [(call.name, call.arguments) for call in news.calls] == list(calls), bench.calls(*calls)
        assert news.finish_reason == "tool_calls"
    (only,) = bench.says(bench.calls(good), parallel_tool_calls=False).calls
    assert only.arguments == good[1]


@pytest.mark.parametrize("bench", FORMATS, indirect=True)
def test_text_is_left_alone(bench: Bench) -> None:
    """All tokens are free as long as no call begins, and the answer is the text, to the letter."""
    for text in (
        "Hello!",
        "I would look at the weather, or at the clock.\nweather: rain",
        '{"city": "Paris", "days": 99}',
        '[{"name": "Ann", "parameters": 1}, {"name": "weathering"}]',
        "Action: go home.\nThat is all.",
        "< tool_call > and <tool_cal",
        "```json\n{}\n```",
    ):
        news = bench.says(text)
        assert (news.content, news.calls, news.finish_reason) == (text, (), "stop")


@pytest.mark.parametrize("bench", ["qwen3"], indirect=True)
def test_thoughts_are_left_alone(bench: Bench) -> None:
    """A thought may speak of calls; the call behind it is held."""
    good = bench.calls(("weather", {"city": "Köln", "days": 3}))
    bad = bench.calls(("weather", {"city": "Paris"}))
    news = bench.says(f"<think>\nI could write {bad} or so.\n</think>\n\n{good}")
    assert bad in news.reasoning
    assert [call.arguments for call in news.calls] == [{"city": "Köln", "days": 3}]
    for seed in range(5):
        news = bench.says(f"<think>\nNow {bad}\n</think>\n\n{bad}", seed)
        assert bad in news.reasoning
        assert all(FITS.is_valid(call.arguments) for call in news.calls)
        assert news.finish_reason != "stop"
    assert bench.says("<thinking> is a word").content == "<thinking> is a word"


@pytest.mark.parametrize("bench", FORMATS, indirect=True)
def test_masks_are_what_a_walk_over_every_token_says(bench: Bench) -> None:
    """The short way to the tokens that may not come gives what the long way gives, in every state on the way."""
    request = body()
    _, constraint = constrained(request, bench.dialect.ask(request), bench.format, bench.vocabulary)
    assert constraint is not None
    masks, grammar = constraint.masks, constraint.masks.automaton
    assert isinstance(grammar, LateGrammar)
    text = ("So <tool\n" + bench.calls(("weather", {"city": "Köln", "days": 3}))).encode()
    n_bounded = 0
    for start in {grammar.first(), grammar.in_text()}:
        state = start
        for byte in text:
            allowed = masks.allowed(state)
            fitting = set(bench.vocabulary.all_tokens.fitting(grammar, state))
            known = set(bench.vocabulary.by_id)
            assert (known if allowed is None else set(allowed) & known) == fitting, (text, state)
            n_bounded += allowed is not None and grammar.is_free(state)
            state = grammar.move(state, byte)
        assert grammar.may_end(state)
    assert n_bounded > 0 or bench.form.tokenizer.vocab_size < 1000


def test_a_mark_that_is_a_special_token_is_seen() -> None:
    """Tokenizers have the marks of calls as special tokens, too; hidden ones are no part of the text."""
    form = make_form("qwen")
    form.tokenizer.add_special_tokens({"additional_special_tokens": ["<tool_call>", "<|hidden|>"]})
    dialect = Dialect(form)
    vocabulary = Vocabulary(form.tokenizer, (END,), dialect.hidden_ids)
    mark, hidden = form.tokenizer.convert_tokens_to_ids(["<tool_call>", "<|hidden|>"])
    request = body()
    _, constraint = constrained(request, dialect.ask(request), dialect.tool_format, vocabulary)
    assert constraint is not None
    assert constraint([hidden]) is None
    assert constraint([mark]) is not None
    assert {vocabulary.by_id[i][:1] for i in constraint([mark]).tolist()} == {b"\n"}
    assert constraint([mark, hidden]) is constraint([mark])


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A server whose engine obeys constraints, as real ones do."""
    service, engine, answers = make_stage_parts("qwen")
    tokenizer = service.dialect.tokenizer

    def answer(request: GenerationRequest) -> Any:
        ids = tokenizer(answers[(len(engine.requests) - 1) % len(answers)], add_special_tokens=False)["input_ids"]
        return said_under(request, ids, service.vocabulary, len(engine.requests))

    engine._answer = answer
    with served(service) as (url, server):
        running = Stage(url, service, engine, tokenizer, answers, server)
        yield running
        running.client.close()


def test_through_the_official_client(stage: Stage) -> None:
    """As the OpenAI Agents SDK asks: strict, and tool_choice auto or none at all; whole, streamed, several at once."""
    tool_format = load_tool_format("qwen")
    stage.says("Let me see.\n" + tool_format.calls_text([ToolCall("weather", BROKEN[0])], False))
    for fields in ({}, {"tool_choice": "auto"}, {"response_format": {"type": "text"}}, {"n": 3}):
        answer = stage.ask(tools=[FREE, STRICT], **fields)
        assert "strict" not in stage.prompt
        assert (
            answer.usage.completion_tokens == sum(len(list(ids)) for ids in [()]) or answer.usage.completion_tokens > 0
        )
        for choice in answer.choices:
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content == "Let me see."
            for call in choice.message.tool_calls:
                assert call.function.name == "clock" or FITS.is_valid(json.loads(call.function.arguments))
    chunks = list(stage.ask(tools=[FREE, STRICT], stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens > 10
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    pieces = [piece for chunk in chunks[:-1] for piece in chunk.choices[0].delta.tool_calls or []]
    calls = [
        json.loads("".join(p.function.arguments for p in pieces if p.index == i)) for i in {p.index for p in pieces}
    ]
    names = [piece.function.name for piece in pieces if piece.id]
    assert text == "Let me see."
    assert calls
    assert all(name == "clock" or FITS.is_valid(call) for name, call in zip(names, calls, strict=True))


def test_usage_counts_every_token_that_was_made(stage: Stage) -> None:
    text = load_tool_format("qwen").calls_text([ToolCall("weather", {"city": "Bonn", "days": 2})], False)
    stage.says(text)
    answer = stage.ask(tools=[STRICT])
    assert answer.usage.completion_tokens == len(stage.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
    assert answer.usage.prompt_tokens == len(stage.seen.prompt_ids)


def test_a_tool_that_is_not_strict_changes_nothing(stage: Stage) -> None:
    stage.says("Hello!")
    for tool in (FREE, {**STRICT, "function": {**STRICT["function"], "strict": False}}):
        assert stage.ask(tools=[tool]).choices[0].message.content == "Hello!"
        assert stage.seen.constraint is None
    stage.ask(tools=[STRICT], tool_choice="none")
    assert stage.seen.constraint is None
    assert stage.ask(tools=[STRICT]).choices[0].message.content == "Hello!"
    assert stage.seen.constraint is not None


def test_what_cannot_be_held_to_is_refused_by_name(stage: Stage) -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"not": {}}}}
    strictly = {**odd, "function": {**odd["function"], "strict": True}}
    said = (
        r"strict demands arguments that fit the schema. tools\[1\].function.parameters.not: this keyword is not built"
    )
    with pytest.raises(openai.BadRequestError, match=said):
        stage.ask(tools=[STRICT, strictly])
    stage.says("Hello!")
    assert stage.ask(tools=[STRICT, odd]).choices[0].message.content == "Hello!"
    with on_stage("qwen3_5") as running:
        with pytest.raises(openai.BadRequestError, match=r"tools\[1\].function.strict: .* not JSON.*leave strict out"):
            running.ask(tools=[FREE, STRICT])
        running.says("Hello!")
        assert running.ask(tools=[FREE]).choices[0].message.content == "Hello!"
