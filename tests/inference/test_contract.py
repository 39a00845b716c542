"""What every engine must do. The models' own `generate` and `forward` are the measure; the fake has its function."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tests.inference import sglang_stub

from tunesmith.core.errors import ModelError
from tunesmith.core.optional import is_installed
from tunesmith.inference.drafting import Assistant, PromptLookup
from tunesmith.inference.engine import Completion, Engine, GenerationRequest, SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.schedule import Limits
from tunesmith.inference.sglang import SglangEngine

GREEDY = SamplingParams(do_sample=False, max_new_tokens=12)
HOT = SamplingParams(temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=10)
LENGTHS = (3, 17, 1, 40, 8, 8, 25, 2)


def spell(ids: list[int]) -> str:
    """A text in which every token can be told."""
    return "".join(f"<{i}>" for i in ids)


@dataclass(frozen=True)
class Kind:
    """An engine under test.

    Attributes:
        make: an engine with so many slots.
        answer: the first 12 tokens of the greedy answer to a prompt, no end token.
        model: None where there is none.
        draws: chance and penalties have an effect.
        several: a step may bring several tokens of an answer.
        beams: it has a beam search.
    """

    make: Any
    answer: Any
    model: Any = None
    draws: bool = True
    several: bool = False
    beams: bool = True


def fake_answer(request: GenerationRequest) -> list[int]:
    rng = random.Random(repr((list(request.prompt_ids), request.sampling.seed)))
    return [rng.randrange(3, 448) for _ in range(200)]


def reference(model: Any) -> Any:
    def answer(prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
        return model.generate(ids, do_sample=False, max_new_tokens=12, **settings)[0, len(prompt) :].tolist()

    return answer


def hf(model: Any, drafter: Any = None, **settings: Any) -> Kind:
    def make(slots: int = 8) -> Engine:
        guesses = None if drafter is None else drafter()
        return HuggingFaceEngine(model, batch_size=slots, decode=spell, drafter=guesses, **settings)

    return Kind(make, reference(model), model, several=drafter is not None)


def rival(model: Any) -> Any:
    """A model that says the same most of the time, as a smaller one of the family does."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.02
    return other


def assisted(model: Any, **settings: Any) -> Kind:
    return hf(model, lambda: Assistant(rival(model), 4), **settings)


def sglang_kind() -> Kind:
    """Our side of SGLang; the other side needs a GPU (the kind `sglang`)."""

    def make(slots: int = 8) -> Engine:
        arguments = {"context_length": 128, "max_running_requests": slots, "enable_deterministic_inference": True}
        sglang_stub.Engine.answer = fake_answer
        return SglangEngine(sglang_stub.Engine(**arguments), arguments, decode=spell)

    return Kind(make, lambda prompt: fake_answer(GenerationRequest(prompt))[:12], draws=False, several=True)


SMALL = Limits(chunk=5, max_bytes=1 << 30)
KINDS = {
    "fake": lambda get: Kind(
        lambda slots=8: FakeEngine(fake_answer, slots=slots, context=128, decode=spell),
        lambda prompt: fake_answer(GenerationRequest(prompt))[:12],
        draws=False,
    ),
    "sglang, a stub of it": lambda get: sglang_kind(),
    "llama": lambda get: hf(get("llama")),
    "llama, pieces of 5 tokens": lambda get: hf(get("llama"), limits=SMALL),
    "llama, no prefix cache": lambda get: hf(get("llama"), limits=Limits(prefix_cache=False)),
    "llama, no memory": lambda get: hf(get("llama"), limits=Limits(chunk=64, max_bytes=0)),
    "llama, padded": lambda get: hf(get("llama"), padded=True),
    "llama, no cache": lambda get: hf(get("llama"), keeps_values=False),
    "llama, padded, no cache": lambda get: hf(get("llama"), padded=True, keeps_values=False),
    "llama, prompt lookup": lambda get: hf(get("llama"), lambda: PromptLookup(6)),
    "llama, prompt lookup, pieces of 5 tokens": lambda get: hf(get("llama"), lambda: PromptLookup(6), limits=SMALL),
    "llama, assistant": lambda get: assisted(get("llama")),
    "llama, assistant, no cache": lambda get: assisted(get("llama"), keeps_values=False),
    "qwen3": lambda get: hf(get("qwen3")),
    "qwen3, pieces of 5 tokens": lambda get: hf(get("qwen3"), limits=SMALL),
}


def vllm_kind() -> Kind:
    """VLLM for real, on the 135M model; it has an environment of its own (make test-vllm)."""
    from tests.inference import vllm_real

    model = vllm_real.model()
    return Kind(lambda slots=8: vllm_real.engine(slots, spell), reference(model), model, beams=False)


def sglang_real_kind() -> Kind:
    """SGLang for real, on the 135M model; it needs a GPU, so nobody has seen it pass yet."""
    from tests.inference import sglang_real

    model = sglang_real.model()
    make = sglang_real.engine
    return Kind(lambda slots=8: make(slots, spell), reference(model), model, several=True, beams=False)


REAL = {"vllm": lambda get: vllm_kind(), "sglang": lambda get: sglang_real_kind()}
"""Engines that want environments of their own; where one is installed, the contract runs on it alone."""
HERE = {name: kind for name, kind in REAL.items() if is_installed(name)} or KINDS


@pytest.fixture(scope="module", params=list(HERE))
def kind(request: pytest.FixtureRequest) -> Kind:
    return HERE[request.param](request.getfixturevalue)


@pytest.mark.gpu
@pytest.mark.skipif("sglang" not in HERE, reason="the contract on SGLang needs a GPU and the package sglang")
def test_sglang_is_under_contract():
    assert torch.cuda.is_available()


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(3, 448) for _ in range(length)] for length in lengths]


def collect(engine: Engine, requests: list[GenerationRequest]) -> list[Completion]:
    """Answers in the order of requests, one each."""
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def one(engine: Engine, prompt: list[int], sampling: SamplingParams = GREEDY, **more: Any) -> Completion:
    return collect(engine, [GenerationRequest(prompt, sampling, **more)])[0]


def test_it_is_an_engine(kind):
    assert isinstance(kind.make(), Engine)


def test_greedy_batched_equals_alone_and_the_models_own(kind):
    """Eight lengths over three slots: sequences begin while others are under way, at every stage of theirs."""
    expected = [kind.answer(prompt) for prompt in prompts()]
    for slots in (1, 3, 8):
        engine = kind.make(slots)
        for _ in range(2):  # the second time over whatever the first left behind
            done = collect(engine, [GenerationRequest(prompt, GREEDY) for prompt in prompts()])
            assert [list(completion.token_ids) for completion in done] == expected
            assert {completion.finish_reason for completion in done} == {"length"}
        stats = engine.stats()
        assert (stats.waiting, stats.running, stats.slots) == (0, 0, slots)
        assert stats.generated_tokens == 2 * 12 * 8
        assert stats.prompt_tokens == 2 * sum(LENGTHS)


def test_requests_join_and_leave_midway(kind):
    engine, expected = kind.make(4), [kind.answer(prompt) for prompt in prompts()]
    ids, made, step = {}, {}, 0
    while len(ids) < len(LENGTHS) or not all(made[i][1] for i in ids):
        if step % 3 == 0 and len(ids) < len(LENGTHS):
            place = len(ids)
            request_id = engine.submit(GenerationRequest(prompts()[place], GREEDY))
            assert request_id not in ids
            ids[request_id], made[request_id] = place, ([], None)
        for delta in engine.step():
            assert len(delta.token_ids) <= 1 or kind.several
            made[delta.request_id][0].extend(delta.token_ids)
            made[delta.request_id] = (made[delta.request_id][0], delta.finish_reason)
        step += 1
        assert step < 500
    assert [made[i][0] for i in ids] == expected
    assert engine.step() == []


def test_end_tokens_end_and_are_told(kind):
    answers = [kind.answer(prompt) for prompt in prompts()]
    ends = [answer[2 + i % 5] for i, answer in enumerate(answers)]
    requests = [GenerationRequest(prompt, GREEDY, (end, 9999)) for prompt, end in zip(prompts(), ends, strict=True)]
    for full, cut, end in zip(answers, collect(kind.make(), requests), ends, strict=True):
        assert list(cut.token_ids) == full[: full.index(end)]
        assert (cut.finish_reason, cut.end_token_id) == ("stop", end)


def test_stop_texts_end(kind):
    answer = kind.answer([5, 6])
    stop = spell(answer[3:5])
    end = next(n for n in range(2, 6) if spell(answer[:n]).endswith(stop))  # the same two may have come before
    cut = one(kind.make(), [5, 6], replace(GREEDY, stop=(stop, "never")))
    assert (list(cut.token_ids), cut.finish_reason, cut.end_token_id) == (answer[:end], "stop", None)


def test_stream_equals_generate(kind):
    engine = kind.make()
    answer = kind.answer([5, 6, 7])
    deltas = list(engine.stream(GenerationRequest([5, 6, 7], GREEDY)))
    assert [i for delta in deltas for i in delta.token_ids] == answer
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert len(deltas) == 12 or kind.several


def test_streams_take_turns(kind):
    """Two streams read in turn on one thread, each with its own answer."""
    engine = kind.make()
    both = [engine.stream(GenerationRequest(prompt, GREEDY)) for prompt in ([5, 6, 7], [8, 9])]
    made = [[], []]
    for _ in range(12):
        for ids, stream in zip(made, both, strict=True):
            delta = next(stream, None)
            assert delta is not None or kind.several
            ids.extend(delta.token_ids if delta else ())
    assert made == [kind.answer([5, 6, 7]), kind.answer([8, 9])]


def test_cancellation_frees_the_slot(kind):
    engine = kind.make(1)
    first = engine.submit(GenerationRequest([5] * 9, replace(GREEDY, max_new_tokens=100)))
    second = engine.submit(GenerationRequest([8, 9], GREEDY))
    while not (seen := engine.step()):
        pass
    assert {delta.request_id for delta in seen} == {first}
    engine.cancel(first)
    engine.cancel(first)
    engine.cancel(12345)
    made = []
    while engine.stats().running or engine.stats().waiting:
        for delta in engine.step():
            assert delta.request_id == second
            made.extend(delta.token_ids)
    assert made == kind.answer([8, 9])
    waiting = engine.submit(GenerationRequest([8, 9], GREEDY))
    engine.cancel(waiting)
    assert engine.step() == []
    assert engine.stats().waiting == 0


def test_closing_a_stream_cancels(kind):
    engine = kind.make(1)
    stream = engine.stream(GenerationRequest([5], replace(GREEDY, max_new_tokens=100)))
    next(stream)
    stream.close()
    assert (engine.stats().running, engine.step()) == (0, [])


def test_several_answers(kind):
    engine = kind.make(3)
    requests = [GenerationRequest(prompt, replace(GREEDY, n=3)) for prompt in prompts()[:4]]
    found: dict[int, list[Completion]] = {}
    for place, completion in engine.generate(requests):
        found.setdefault(place, []).append(completion)
    for place, prompt in enumerate(prompts()[:4]):
        assert sorted(completion.index for completion in found[place]) == [0, 1, 2]
        assert [list(completion.token_ids) for completion in found[place]] == [kind.answer(prompt)] * 3
    deltas = list(engine.stream(requests[0]))
    assert sum(delta.finish_reason is not None for delta in deltas) == 3


def test_answers_of_a_request_differ_and_the_first_is_that_of_one(kind):
    if not kind.draws:
        assert kind.model is None
        return
    prompt, sampling = [5, 6, 7], replace(HOT, seed=11)
    several = {
        c.index: c.token_ids for _, c in kind.make().generate([GenerationRequest(prompt, replace(sampling, n=4))])
    }
    assert len(set(several.values())) == 4
    assert several[0] == one(kind.make(), prompt, sampling).token_ids


def test_seeds_decide_alone_whatever_the_batch(kind):
    requests = [GenerationRequest(prompt, replace(HOT, seed=seed)) for seed, prompt in enumerate(prompts())]
    alone = [collect(kind.make(1), [request])[0] for request in requests]
    assert collect(kind.make(3), requests) == alone
    assert one(kind.make(), list(requests[0].prompt_ids), replace(HOT, seed=99)) != alone[0]


def test_logprobs_are_log_softmax(kind):
    prompt = [5, 6, 7, 8, 9]
    plain = one(kind.make(), prompt)
    assert plain.logprobs == ()
    engine = kind.make()
    requests = [GenerationRequest(prompt, replace(GREEDY, logprobs=3)), GenerationRequest([8, 9], GREEDY)]
    (told, _) = collect(engine, requests)
    assert told.token_ids == plain.token_ids
    assert [entry.token_id for entry in told.logprobs] == list(told.token_ids)
    assert {len(entry.top) for entry in told.logprobs} == {3}
    if kind.model is None:
        return
    with torch.inference_mode():
        logits = kind.model(torch.tensor([[*prompt, *told.token_ids]])).logits[0]
    expected = torch.log_softmax(logits.float(), dim=-1)[len(prompt) - 1 : -1]
    for entry, row in zip(told.logprobs, expected, strict=True):
        values, ids = row.topk(3)
        assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
        assert [i for i, _ in entry.top] == ids.tolist()
        assert [value for _, value in entry.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_logprobs_are_of_the_model_not_of_the_penalties(kind):
    if not kind.draws:
        assert kind.model is None
        return
    banned = kind.answer([5, 6])[0]
    sampling = replace(GREEDY, logit_bias=((banned, -100.0),), logprobs=1)
    entry = one(kind.make(), [5, 6], sampling).logprobs[0]
    assert entry.token_id != banned
    assert entry.top[0][0] == banned


def test_repetition_penalty_equals_generate(kind):
    if kind.model is None:
        assert not kind.draws
        return
    ids = torch.tensor([[5, 6, 7]])
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
    want = kind.model.generate(ids, do_sample=False, repetition_penalty=1.4, max_new_tokens=10, **settings)
    sampling = replace(GREEDY, repetition_penalty=1.4, max_new_tokens=10)
    assert list(one(kind.make(), [5, 6, 7], sampling).token_ids) == want[0, 3:].tolist()


def test_constraints_bound_every_token(kind):
    """Only 11..14 may come, each once, in this order; then nothing may, which ends the answer."""
    if not kind.draws:
        assert kind.model is None
        return

    def allowed(answer: Any) -> list[int]:
        assert list(answer) == list(range(11, 11 + len(answer)))
        return [11 + len(answer)] if len(answer) < 4 else []

    for sampling in (GREEDY, replace(HOT, n=2)):
        for _, completion in kind.make().generate([GenerationRequest([5, 6], sampling, constraint=allowed)]):
            assert completion.token_ids == (11, 12, 13, 14)
            assert (completion.finish_reason, completion.end_token_id) == ("stop", None)


def test_answer_penalties_are_subtracted(kind):
    """Greedy by hand, token by token: once for what was said, and once more for each time."""
    if not kind.draws:
        assert kind.model is None
        return
    for penalties in ({"presence_penalty": 1.5}, {"frequency_penalty": 0.7}, {"presence_penalty": -1.0}):
        answer: list[int] = []
        for _ in range(12):
            with torch.inference_mode():
                logits = kind.model(torch.tensor([[5, 6, *answer]])).logits[0, -1]
            logits = logits.clone()  # inference tensors cannot be written to outside of inference mode
            for token_id in set(answer):
                logits[token_id] -= penalties.get("presence_penalty", 0)
                logits[token_id] -= penalties.get("frequency_penalty", 0) * answer.count(token_id)
            answer.append(int(logits.argmax()))
        assert list(one(kind.make(), [5, 6], replace(GREEDY, **penalties)).token_ids) == answer


def test_context_bounds_answers_and_prompts(kind):
    engine = kind.make()
    assert engine.context == 128
    done = one(engine, [5] * 124, SamplingParams(do_sample=False))
    assert (len(done.token_ids), done.finish_reason) == (4, "length")
    assert len(one(engine, [5] * 20, SamplingParams(do_sample=False, max_new_tokens=0, max_length=23)).token_ids) == 3
    for prompt, message in (([5] * 128, "128 tokens, the model's context holds 128"), ([], "without tokens")):
        with pytest.raises(ModelError, match=message):
            engine.submit(GenerationRequest(prompt, GREEDY))
    with pytest.raises(ModelError, match="no adapter 'x'"):
        engine.submit(GenerationRequest([5], GREEDY, adapter="x"))


def test_shared_prefixes_change_nothing(kind):
    """Prompts that begin alike, at once and one after the other, and prompts inside one another."""
    stem = prompts((40,))[0]
    family = [[*stem, 7], [*stem, 8, 9], stem, stem[:20], [*stem[:20], 7, 7], [*stem, 7]]
    engine, expected = kind.make(), [kind.answer(prompt) for prompt in family]
    for _ in range(2):
        done = collect(engine, [GenerationRequest(prompt, GREEDY) for prompt in family])
        assert [list(completion.token_ids) for completion in done] == expected
    for prompt, want in zip(family, expected, strict=True):
        assert list(one(engine, prompt).token_ids) == want


def test_beams_equal_generate(kind):
    if kind.model is None:
        assert not kind.draws
        return
    sampling = replace(GREEDY, num_beams=3, length_penalty=1.2, max_new_tokens=6)
    if not kind.beams:
        with pytest.raises(ModelError, match="no beam search"):
            kind.make().submit(GenerationRequest([5, 6, 7], sampling))
        return
    ids = torch.tensor([[5, 6, 7]])
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
    want = kind.model.generate(ids, do_sample=False, num_beams=3, length_penalty=1.2, max_new_tokens=6, **settings)
    requests = [GenerationRequest([5, 6, 7], sampling), GenerationRequest([8, 9], GREEDY)]
    beams, greedy = collect(kind.make(), requests)
    assert list(beams.token_ids) == want[0, 3:].tolist()
    # With many ends to choose among, length_penalty decides when to stop.
    ends, lengths = list(range(3, 60)), []
    for penalty in (-4.0, 4.0):
        settings["eos_token_id"] = ends
        want = kind.model.generate(
            ids, do_sample=False, num_beams=3, length_penalty=penalty, max_new_tokens=8, **settings
        )
        asked = GenerationRequest([5, 6, 7], replace(sampling, length_penalty=penalty, max_new_tokens=8), tuple(ends))
        found = list(collect(kind.make(), [asked])[0].token_ids)
        assert found == [i for i in want[0, 3:].tolist() if i not in ends and i != 0]
        lengths.append(len(found))
    assert lengths[0] < lengths[1]
    assert list(greedy.token_ids) == kind.answer([8, 9])
