"""Guesses ahead: where they come from, what they save, and that answers, drawn ones too, are those without them."""

from __future__ import annotations

import random

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.inference.conftest import make_adapter, make_llama

from tunesmith.core.errors import ModelError
from tunesmith.inference.drafting import Assistant, PromptLookup, trust
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.line import LineForward
from tunesmith.inference.sampling import make_generator
from tunesmith.inference.schedule import Limits
from tunesmith.inference.sequence import Sequence


def ask(prompt, **sampling):
    return GenerationRequest(prompt, SamplingParams(**{"do_sample": False, "max_new_tokens": 12, **sampling}))


def answers(engine, requests):
    found = dict(engine.generate(requests))
    return [list(found[i].token_ids) for i in range(len(requests))]


def random_prompts(count, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(3, 448) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


def row(prompt, answer=()):
    sequence = Sequence(1, 0, ask(prompt), 99, generator=make_generator(0))
    sequence.answer = list(answer)
    return sequence


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


def test_prompt_lookup_by_hand():
    lookup = PromptLookup(3, max_ngram=2)
    # 1 2 came before, and 3 4 1 behind it.
    assert lookup.draft([row([1, 2, 3, 4, 1, 2])], [9]) == [[3, 4, 1]]
    # Twice: the later one, which has three tokens behind it, too.
    assert lookup.draft([row([1, 2, 3, 4, 5, 1, 2, 6, 7, 8], [1, 2])], [9]) == [[6, 7, 8]]
    # The later one has fewer than asked for behind it: the earlier one.
    assert lookup.draft([row([1, 2, 3, 4, 5, 1, 2, 9], [1, 2])], [9]) == [[9, 1, 2]]
    # No pair came before; the single token did.
    assert lookup.draft([row([7, 2, 5, 6, 8], [2])], [9]) == [[5, 6, 8]]
    assert lookup.draft([row([1, 2, 3]), row([4])], [9, 9]) == [[], []]


def test_room_and_trust_bound_drafts():
    lookup, known = PromptLookup(3), row([1, 2, 3, 4, 1, 2])
    assert lookup.draft([known, known], [2, 0]) == [[3, 4], []]
    known.n_trusted = 1
    assert lookup.draft([known], [9]) == [[3]]
    assert (trust(4, 4), trust(4, 0), trust(4, 2)) == (8, 1, 3)


def test_a_text_that_repeats_itself_takes_a_fraction_of_the_passes(widths):
    """A tiny model with tied weights says the same token again and again: every draft of 8 is right.

    40 tokens: the first from the prompt; the second pass has no draft of its own text but the prompt's, after that
    nine a pass: no more than 7 passes, against 40.
    """
    engine = HuggingFaceEngine(make_tiny_llama(), drafter=PromptLookup(8))
    del widths[:]
    (answer,) = answers(engine, [ask([5, 6, 7], max_new_tokens=40)])
    with_drafts = len(widths)
    plain = HuggingFaceEngine(make_tiny_llama())
    del widths[:]
    assert answers(plain, [ask([5, 6, 7], max_new_tokens=40)]) == [answer]
    assert (len(widths), with_drafts <= 9) == (40, True)
    stats = engine.stats()
    assert stats.accepted_tokens >= 30
    assert stats.accepted_tokens / stats.drafted_tokens > 0.9
    assert stats.accepted_tokens + with_drafts == stats.generated_tokens == 40


def test_an_assistant_that_is_never_wrong_saves_four_of_five_passes():
    engine, steps = HuggingFaceEngine(make_llama(), drafter=Assistant(make_llama(), 4)), 0
    requests = [ask(prompt, max_new_tokens=21) for prompt in random_prompts(3)]
    for request in requests:
        engine.submit(request)
    while engine.stats().running or engine.stats().waiting:
        engine.step()
        steps += 1
    # A token from each prompt, then five a step.
    assert steps == 5
    assert engine.stats().accepted_tokens == engine.stats().drafted_tokens == 3 * 16


def test_drawn_answers_are_the_same_with_any_drafter():
    """The same tokens for the same seeds, so the same distribution: penalties, biases and constraints included."""
    kinds = (
        {"temperature": 1.3, "top_p": 1.0, "top_k": 0},
        {"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.3},
        {
            "temperature": 1.0,
            "presence_penalty": 1.0,
            "frequency_penalty": 0.5,
            "logit_bias": ((9, 5.0),),
            "logprobs": 2,
        },
    )
    requests = [
        ask(prompt, do_sample=True, seed=seed, max_new_tokens=20, n=2, **kinds[seed % 3])
        for seed, prompt in enumerate(random_prompts(9, seed=2))
    ]
    even = [GenerationRequest([5, 6], ask([5]).sampling, constraint=lambda answer: range(0, 448, 2))]

    def all_of(engine):
        found = sorted((place, c.index, c.token_ids, c.finish_reason) for place, c in engine.generate(requests + even))
        assert engine.stats().drafted_tokens or engine._drafter is None
        return found

    plain = all_of(HuggingFaceEngine(make_llama()))
    for drafter in (PromptLookup(5, 1), Assistant(make_llama(), 3), Assistant(make_llama(num_hidden_layers=1), 3)):
        assert all_of(HuggingFaceEngine(make_llama(), drafter=drafter)) == plain


def test_logprobs_and_ends_within_a_draft():
    plain = HuggingFaceEngine(make_llama())
    ((_, want),) = plain.generate([ask([5, 6, 7], logprobs=2)])
    engine = HuggingFaceEngine(make_llama(), drafter=Assistant(make_llama(), 8))
    ((_, got),) = engine.generate([ask([5, 6, 7], logprobs=2)])
    assert got.token_ids == want.token_ids
    assert [entry.logprob for entry in got.logprobs] == pytest.approx(
        [entry.logprob for entry in want.logprobs], abs=1e-4
    )
    for place in range(1, 10):
        end = want.token_ids[place]
        first = want.token_ids.index(end)
        ((_, cut),) = engine.generate([GenerationRequest([5, 6, 7], ask([5]).sampling, (end,))])
        assert (cut.token_ids, cut.end_token_id) == (want.token_ids[:first], end)
    # What was cached behind the end is of no harm to the next one.
    ((_, again),) = engine.generate([ask([5, 6, 7])])
    assert again.token_ids == want.token_ids


def test_adapters_draft_with_the_text_and_with_the_base(tmp_path):
    folder = make_adapter(tmp_path, 3)
    requests = [GenerationRequest(p, ask(p).sampling, adapter=a) for p in random_prompts(3) for a in (None, "x")]
    found = []
    for drafter in (None, PromptLookup(4), Assistant(make_llama(), 4)):
        engine = HuggingFaceEngine(make_llama(), drafter=drafter)
        engine.add_adapter("x", folder)
        found.append(answers(engine, requests))
    assert found[0] == found[1] == found[2]


def test_drafts_keep_within_a_step_and_a_budget(widths):
    engine = HuggingFaceEngine(make_llama(), drafter=Assistant(make_llama(), 50), limits=Limits(chunk=12))
    del widths[:]
    engine.submit(ask([5, 6, 7], max_new_tokens=30))
    engine.submit(ask([8, 9], max_new_tokens=30))
    while engine.stats().running or engine.stats().waiting:
        engine.step()
    assert max(widths) <= 12 + 2
    long = HuggingFaceEngine(make_llama(), drafter=Assistant(make_llama(), 50))
    ((_, done),) = long.generate([ask([5] * 120, max_new_tokens=99)])
    assert (len(done.token_ids), done.finish_reason) == (8, "length")


def test_an_assistant_forgets_answers_that_are_done_or_cancelled():
    assistant = Assistant(make_llama(), 3)
    engine = HuggingFaceEngine(make_llama(), drafter=assistant)
    request_id = engine.submit(ask([5, 6, 7], max_new_tokens=50))
    for _ in range(3):
        engine.step()
    assert assistant.n_bytes
    assert engine.stats().cache_bytes > assistant.n_bytes
    engine.cancel(request_id)
    assert assistant.n_bytes == 0
    answers(engine, [ask([5, 6, 7])])
    assert assistant.n_bytes == 0


def test_padded_batches_cannot_verify():
    with pytest.raises(ModelError, match="runs in padded batches, which cannot verify drafts"):
        HuggingFaceEngine(make_llama(), padded=True, drafter=PromptLookup(3))


def test_without_a_cache_every_pass_reads_all(widths):
    engine = HuggingFaceEngine(make_llama(), keeps_values=False)
    del widths[:]
    engine.submit(ask([5, 6, 7], max_new_tokens=4))
    while engine.stats().running or engine.stats().waiting:
        engine.step()
        assert engine.stats().cache_bytes == 0
    assert widths == [3, 4, 5, 6]
    beams = ask([5, 6, 7], num_beams=2, max_new_tokens=5)
    with torch.no_grad():
        assert answers(engine, [beams]) == answers(HuggingFaceEngine(make_llama()), [beams])
