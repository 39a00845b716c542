"""The transformers engine: batches equal single requests, ends are told rightly, streams equal batches."""

import random

import pytest
import torch

from tunesmith.core.errors import ModelError
from tunesmith.inference.batching import sorted_batches
from tunesmith.inference.engine import Engine, GenerationRequest, SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.sampling import choose, keep_likely, make_generator, penalise_repetition

GREEDY = SamplingParams(do_sample=False, max_new_tokens=12)
LENGTHS = (3, 17, 1, 40, 8, 8, 25, 2)


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=448,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def prompts(lengths=LENGTHS):
    rng = random.Random(1)
    return [[rng.randrange(3, 448) for _ in range(length)] for length in lengths]


def collect(engine, requests):
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def test_it_is_an_engine(model):
    assert isinstance(HuggingFaceEngine(model), Engine)
    assert isinstance(FakeEngine([[1]]), Engine)


def test_greedy_batch_of_eight_equals_one_by_one_and_generate(model):
    requests = [GenerationRequest(prompt, GREEDY) for prompt in prompts()]
    batched = collect(HuggingFaceEngine(model, batch_size=8), requests)
    alone = collect(HuggingFaceEngine(model, batch_size=1), requests)
    assert batched == alone
    for request, completion in zip(requests, batched, strict=True):
        ids = torch.tensor([request.prompt_ids])
        reference = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=None,
        )
        assert list(completion.token_ids) == reference[0, ids.shape[1] :].tolist()
        assert completion.finish_reason == "length"


def test_rows_that_end_early_leave_without_disturbing_the_rest(model):
    """End tokens are taken from the answers themselves, so that rows end at different steps."""
    plain = collect(HuggingFaceEngine(model, batch_size=8), [GenerationRequest(p, GREEDY) for p in prompts()])
    ends = [completion.token_ids[2 + i % 5] for i, completion in enumerate(plain)]
    requests = [GenerationRequest(prompt, GREEDY, (end, 9999)) for prompt, end in zip(prompts(), ends, strict=True)]
    batched = collect(HuggingFaceEngine(model, batch_size=8), requests)
    for full, cut, end in zip(plain, batched, ends, strict=True):
        assert cut.token_ids == full.token_ids[: full.token_ids.index(end)]
        assert (cut.finish_reason, cut.end_token_id) == ("stop", end)


def test_stream_equals_generate(model):
    engine = HuggingFaceEngine(model)
    for prompt in prompts()[:3]:
        (completion,) = collect(engine, [GenerationRequest(prompt, GREEDY)])
        deltas = list(engine.stream(GenerationRequest(prompt, GREEDY)))
        assert [i for delta in deltas for i in delta.token_ids] == list(completion.token_ids)
        assert [delta.finish_reason for delta in deltas] == [None] * 11 + ["length"]
        end = completion.token_ids[4]
        last = list(engine.stream(GenerationRequest(prompt, GREEDY, (end,))))[-1]
        assert (last.token_ids, last.finish_reason, last.end_token_id) == ((), "stop", end)


def test_closing_a_stream_stops_the_work(model, monkeypatch):
    engine = HuggingFaceEngine(model)
    stream = engine.stream(GenerationRequest([5, 6, 7], GREEDY))
    next(stream)
    stream.close()
    monkeypatch.setattr(engine, "_forward", None)
    assert list(stream) == []
    assert engine.step() == []
    assert engine.stats().running == 0


def test_temperature_zero_is_greedy(model):
    engine = HuggingFaceEngine(model)
    cold = SamplingParams(do_sample=True, temperature=0.0, max_new_tokens=12)
    assert collect(engine, [GenerationRequest([9, 8], cold)]) == collect(engine, [GenerationRequest([9, 8], GREEDY)])


def test_seeds_decide_alone_whatever_the_batch(model):
    def ask(seed):
        return SamplingParams(temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=10, seed=seed)

    requests = [GenerationRequest(prompt, ask(seed)) for seed, prompt in enumerate(prompts())]
    alone = collect(HuggingFaceEngine(model, batch_size=1), requests)
    assert collect(HuggingFaceEngine(model, batch_size=4), requests) == alone
    other = collect(HuggingFaceEngine(model), [GenerationRequest(requests[0].prompt_ids, ask(99))])
    assert other[0] != alone[0]


def test_context_bounds_answers_and_prompts(model):
    engine = HuggingFaceEngine(model)
    (completion,) = collect(engine, [GenerationRequest([5] * 60, SamplingParams(do_sample=False))])
    assert (len(completion.token_ids), completion.finish_reason) == (4, "length")
    with pytest.raises(ModelError, match="64 tokens, the model's context holds 64"):
        collect(engine, [GenerationRequest([5] * 64, GREEDY)])
    with pytest.raises(ModelError, match="without tokens"):
        collect(engine, [GenerationRequest([], GREEDY)])


def test_max_length_rules_where_max_new_tokens_is_zero():
    assert SamplingParams(max_new_tokens=0, max_length=20).budget(15) == 5
    assert SamplingParams(max_new_tokens=0, max_length=20).budget(30) == 1
    assert SamplingParams(max_new_tokens=7).budget(500) == 7


def test_stop_texts_end_an_answer(model):
    def decode(ids):
        return "".join(f"<{i}>" for i in ids)

    engine = HuggingFaceEngine(model, decode=decode)
    (plain,) = collect(engine, [GenerationRequest([5, 6], GREEDY)])
    stop = f"<{plain.token_ids[3]}><{plain.token_ids[4]}>"
    sampling = SamplingParams(do_sample=False, max_new_tokens=12, stop=(stop,))
    (cut,) = collect(engine, [GenerationRequest([5, 6], sampling)])
    assert (cut.token_ids, cut.finish_reason) == (plain.token_ids[:5], "stop")


def test_beams_equal_generate(model):
    sampling = SamplingParams(do_sample=False, num_beams=3, max_new_tokens=6, length_penalty=1.2)
    (completion,) = collect(HuggingFaceEngine(model), [GenerationRequest([5, 6, 7], sampling)])
    ids = torch.tensor([[5, 6, 7]])
    reference = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=3,
        length_penalty=1.2,
        max_new_tokens=6,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert list(completion.token_ids) == reference[0, 3:].tolist()


def test_repetition_penalty_equals_generate(model):
    sampling = SamplingParams(do_sample=False, repetition_penalty=1.4, max_new_tokens=10)
    (completion,) = collect(HuggingFaceEngine(model), [GenerationRequest([5, 6, 7], sampling)])
    ids = torch.tensor([[5, 6, 7]])
    reference = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        repetition_penalty=1.4,
        max_new_tokens=10,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert list(completion.token_ids) == reference[0, 3:].tolist()


def test_sorted_batches():
    assert sorted_batches([3, 9, 1, 9], 2) == [[1, 3], [0, 2]]
    assert sorted_batches([], 4) == []


def test_penalty_by_hand():
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalise_repetition(logits, [0, 1, 0], 2.0).tolist() == [1.0, -4.0, 1.0]


def test_top_k_and_top_p_by_hand():
    """Probabilities 0.5, 0.25, 0.125, 0.125; top_p 0.6 keeps two, of which the first then has 2/3."""
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125]).log()
    probabilities, ids = keep_likely(logits, 0, 0.6)
    assert ids.tolist() == [1, 2]
    assert probabilities.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert keep_likely(logits, 1, 1.0)[1].tolist() == [1]
    assert keep_likely(logits, 0, 0.01)[1].tolist() == [1]
    assert sorted(keep_likely(logits, 0, 1.0)[1].tolist()) == [0, 1, 2, 3]


def test_draws_follow_the_probabilities():
    """3000 draws from (0.75, 0.25): the share of the first is within four standard errors (0.0079) of 0.75."""
    logits, generator = torch.tensor([0.75, 0.25]).log(), make_generator(0)
    sampling = SamplingParams(temperature=1.0, top_p=1.0, top_k=0)
    share = sum(choose(logits, sampling, generator) == 0 for _ in range(3000)) / 3000
    assert abs(share - 0.75) < 0.032


def test_fake_engine_obeys_budget_and_ends():
    engine = FakeEngine([[7, 8, 2, 9], [5, 5, 5, 5]])
    requests = [GenerationRequest([1], SamplingParams(max_new_tokens=3), (2,))] * 2
    found = dict(engine.generate(requests))
    assert (found[0].token_ids, found[0].finish_reason, found[0].end_token_id) == ((7, 8), "stop", 2)
    assert (found[1].token_ids, found[1].finish_reason) == ((5, 5, 5), "length")
    assert len(engine.requests) == 2
