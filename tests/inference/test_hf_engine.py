"""The transformers engine beyond the contract: what it reuses, how it shares a step, which models it can do so with."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tests.inference.conftest import make_adapter, make_llama

from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.keys_values import KeyValues, Known, PrefixCache, best_match, common_prefix
from tunesmith.inference.line import LineForward
from tunesmith.inference.padded import PaddedForward
from tunesmith.inference.sampling import (
    allow_only,
    choose,
    keep_likely,
    make_generator,
    penalise_answer,
    penalise_repetition,
)
from tunesmith.inference.schedule import Limits

GREEDY = SamplingParams(do_sample=False, max_new_tokens=12)


def ask(prompt, **sampling):
    return GenerationRequest(prompt, SamplingParams(**{"do_sample": False, "max_new_tokens": 12, **sampling}))


def random_prompt(length, seed=0):
    rng = random.Random(seed)
    return [rng.randrange(3, 448) for _ in range(length)]


def answers(engine, requests):
    found = dict(engine.generate(requests))
    return [list(found[i].token_ids) for i in range(len(requests))]


def own(model, prompt, n=12):
    ids = torch.tensor([prompt])
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
    return model.generate(ids, do_sample=False, max_new_tokens=n, **settings)[0, len(prompt) :].tolist()


@pytest.fixture
def widths(monkeypatch):
    """Tokens of every forward pass over a line, after the engine is made."""
    seen = []
    run = LineForward._run

    def watched(self, ids, *rest):
        seen.append(len(ids))
        return run(self, ids, *rest)

    monkeypatch.setattr(LineForward, "_run", watched)
    return seen


def test_a_long_prompt_does_not_stall_others(llama, widths):
    """While 60 tokens are read 8 a step, the answer under way gets a token in every step."""
    engine = HuggingFaceEngine(llama, limits=Limits(chunk=8))
    first = engine.submit(ask([5, 6], max_new_tokens=30))
    engine.step()
    second = engine.submit(ask(random_prompt(60)))
    del widths[:]
    made = [[delta.request_id for delta in engine.step()] for _ in range(8)]
    assert widths == [9] * 7 + [5]
    assert made[:7] == [[first]] * 7
    assert sorted(made[7]) == [first, second]


def test_a_step_reads_pieces_of_several_prompts(llama, widths):
    engine = HuggingFaceEngine(llama, limits=Limits(chunk=8, prefix_cache=False))
    for seed in range(3):
        engine.submit(ask(random_prompt(5, seed)))
    del widths[:]
    engine.step()
    engine.step()
    assert widths == [8, 8]  # 5 + 3, then one token of the first, 2 + 5 of the others


def test_a_known_prefix_is_not_read_again(llama, widths):
    engine = HuggingFaceEngine(llama)
    prompt = random_prompt(40)
    (answer,) = answers(engine, [ask(prompt)])
    del widths[:]
    assert answers(engine, [ask(prompt)]) == [answer]
    assert widths == [1] * 12
    follow_up = [*prompt, *answer, 7, 8]
    del widths[:]
    assert answers(engine, [ask(follow_up)]) == [own(llama, follow_up)]
    assert widths[0] == 3  # the last token of the answer was never run
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.cached_tokens) == (40 + 40 + 54, 39 + 51)
    assert stats.cache_bytes > 0


def test_a_shared_prefix_is_read_once_by_requests_that_come_together(llama, widths):
    engine = HuggingFaceEngine(llama)
    stem = random_prompt(50)
    del widths[:]
    requests = [ask([*stem, 3 + i], max_new_tokens=2) for i in range(6)]
    assert answers(engine, requests) == [own(llama, list(r.prompt_ids), 2) for r in requests]
    assert engine.stats().cached_tokens == 5 * 50
    assert sum(widths) == 51 + 5 + 6


def test_answers_of_one_prompt_share_it(llama):
    engine = HuggingFaceEngine(llama)
    list(engine.generate([ask(random_prompt(30), n=4)]))
    assert engine.stats().cached_tokens == 3 * 29


def test_memory_bounds_what_runs_together(llama):
    """With room for 60 tokens, of three requests for 10 + 12 two run together; one too large runs alone."""
    probe = HuggingFaceEngine(llama)
    per_token = probe._forward.bytes_per_token
    assert per_token == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head size, bytes
    engine = HuggingFaceEngine(llama, limits=Limits(max_bytes=60 * per_token))
    prompts = [random_prompt(10, seed) for seed in range(3)]
    for prompt in prompts:
        engine.submit(ask(prompt))
    engine.step()
    assert (engine.stats().running, engine.stats().waiting) == (2, 1)
    while engine.step():
        pass
    assert answers(engine, [ask(random_prompt(100))]) == [own(llama, random_prompt(100))]


def test_the_model_is_as_before_between_steps(llama):
    before = llama.config._attn_implementation
    engine = HuggingFaceEngine(llama)
    stream = engine.stream(ask([5, 6, 7]))
    next(stream)
    assert llama.config._attn_implementation == before
    assert own(llama, [8, 9]) == answers(engine, [ask([8, 9])])[0]
    stream.close()


def test_a_failed_step_leaves_an_engine_that_works(llama, monkeypatch):
    engine = HuggingFaceEngine(llama)
    request_id = engine.submit(ask([5, 6, 7]))
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(LineForward, "_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    engine.cancel(request_id)
    assert answers(engine, [ask([5, 6, 7])]) == [own(llama, [5, 6, 7])]


def build(name, **changes):
    import transformers

    settings = {
        "vocab_size": 448,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "eos_token_id": 2,
    }
    torch.manual_seed(5)
    config = getattr(transformers, f"{name}Config")(**(settings | changes))
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


MODELS = {
    "sliding window": lambda: build("Mistral", sliding_window=8),
    "soft caps": lambda: build("Gemma2", head_dim=8, sliding_window=8, attn_logit_softcapping=5.0),
    "sinks": lambda: build("GptOss", head_dim=8, sliding_window=8, num_local_experts=4, num_experts_per_tok=2),
    "experts": lambda: build("Qwen3Moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "written out": lambda: make_llama(attn_implementation="eager"),
    "half precision": lambda: make_llama().to(torch.bfloat16),
    "as many key heads": lambda: make_llama(num_key_value_heads=4),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_kinds_of_attention_need_no_padding(name):
    model = MODELS[name]()
    engine = HuggingFaceEngine(model, limits=Limits(chunk=16))
    assert isinstance(engine._forward, LineForward)
    prompts = [random_prompt(length, length) for length in (3, 17, 30, 20)]
    n = 3 if name == "half precision" else 12  # rounding decides close calls there
    assert answers(engine, [ask(p, max_new_tokens=n) for p in prompts]) == [own(model, p, n) for p in prompts]


PADDED = {
    "no interface": lambda: build("Bloom", n_layer=2, n_head=4),
    "chunked attention": lambda: build(
        "Llama4", head_dim=8, num_local_experts=2, attention_chunk_size=8, intermediate_size_mlp=32
    ),
}


@pytest.mark.parametrize("name", ["no interface"])
@pytest.mark.filterwarnings("ignore")
def test_other_models_get_padded_batches(name):
    model = PADDED[name]()
    engine = HuggingFaceEngine(model, batch_size=3)
    assert isinstance(engine._forward, PaddedForward)
    prompts = [random_prompt(length, length) for length in (3, 17, 30, 20, 9)]
    assert answers(engine, [ask(prompt) for prompt in prompts]) == [own(model, prompt) for prompt in prompts]


def test_chunked_attention_is_told_by_the_configuration(llama, monkeypatch):
    monkeypatch.setattr(llama.config, "attention_chunk_size", 8, raising=False)
    assert isinstance(HuggingFaceEngine(llama)._forward, PaddedForward)


def test_a_peft_model_answers_with_its_adapter(tmp_path):
    from peft import PeftModel

    model = PeftModel.from_pretrained(make_llama(), str(make_adapter(tmp_path, 1))).eval()
    engine = HuggingFaceEngine(model)
    assert isinstance(engine._forward, LineForward)
    prompts = [random_prompt(length) for length in (3, 17)]
    assert answers(engine, [ask(prompt) for prompt in prompts]) == [own(model, prompt) for prompt in prompts]
    assert answers(engine, [ask(prompts[1])]) != answers(HuggingFaceEngine(make_llama()), [ask(prompts[1])])


def test_common_prefix_by_hand():
    a = np.array([1, 2, 3])
    assert [common_prefix(a, np.array(b, dtype=int)) for b in ([1, 2, 4], [1, 2, 3, 4], [], [9])] == [2, 3, 0, 0]


def test_prefix_cache_drops_what_was_used_longest_ago():
    def entry(ids, key=None):
        values = KeyValues()
        values.reserve(64)
        values.write(0, 0, torch.zeros(1, len(ids), 1), torch.zeros(1, len(ids), 1))
        return Known(key, np.array(ids), values)

    assert entry([1]).values.n_bytes == 512
    cache = PrefixCache(max_bytes=1024)
    first, second, third = entry([1, 2]), entry([3]), entry([4])
    cache.keep(first)
    cache.keep(second)
    cache.touch(first)
    cache.keep(third)
    assert cache.entries == [first, third]
    longer, other = entry([1, 2, 5]), entry([1, 2, 5], key=7)
    cache.keep(longer)  # holds all of the first
    assert cache.entries == [third, longer]
    cache.keep(other)
    assert cache.entries == [longer, other]
    assert best_match(np.array([1, 2, 9]), 7, cache.entries) == (2, other)
    assert best_match(np.array([9]), None, cache.entries) == (0, None)
    cache.forget(7)
    assert cache.entries == [longer]
    cache.shrink(0)
    assert cache.n_bytes == 0


def test_answer_penalties_by_hand():
    logits = torch.tensor([1.0, 2.0, 3.0])
    assert penalise_answer(logits, [2, 2, 0], 0.5, 0.25).tolist() == [0.25, 2.0, 2.0]


def test_allowed_tokens_by_hand():
    logits, low = torch.tensor([1.0, 2.0, 3.0]), float("-inf")
    assert allow_only(logits, None) is logits
    assert allow_only(logits, [2, 0]).tolist() == [1.0, low, 3.0]
    assert allow_only(logits, torch.tensor([False, True])).tolist() == [low, 2.0, low]
    assert choose(allow_only(logits, []), GREEDY, make_generator(0)) is None
    assert choose(allow_only(logits, []), SamplingParams(), make_generator(0)) is None


def test_max_length_rules_where_max_new_tokens_is_zero():
    assert SamplingParams(max_new_tokens=0, max_length=20).budget(15) == 5
    assert SamplingParams(max_new_tokens=0, max_length=20).budget(30) == 1
    assert SamplingParams(max_new_tokens=7).budget(500) == 7


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
