"""Scores of given tokens: equal to one plain forward pass a request, however beginnings are shared."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tests.inference.conftest import make_adapter, make_llama

from tunesmith.core.errors import ModelError
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.line import LineForward
from tunesmith.inference.scoring import PIECE, ScoreRequest, plan_groups


def ids(length: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, 448) for _ in range(length)]


def plain(model: Any, request: ScoreRequest) -> tuple[list[float], bool]:
    """The same by a whole forward pass of transformers' own."""
    row = torch.tensor([request.run_ids])
    with torch.no_grad():
        logprobs = model(input_ids=row).logits[0].log_softmax(-1)
    if request.candidates:
        return logprobs[-1, list(request.candidates)].tolist(), False
    parts = logprobs[-len(request.continuation) :]
    picked = [float(part[token]) for part, token in zip(parts, request.continuation, strict=True)]
    return picked, parts.argmax(-1).tolist() == list(request.continuation)


def subjects(n_subjects: int = 3, n_questions: int = 7) -> list[ScoreRequest]:
    """Questions behind long beginnings that they share, of different lengths."""
    return [
        ScoreRequest([*ids(60, 100 + s), *ids(3 + (q * 5) % 11, 1000 * s + q)], candidates=(5, 6, 7, 8))
        for q in range(n_questions)
        for s in range(n_subjects)
    ]


def continuations() -> list[ScoreRequest]:
    """Four answers to each prompt, of one to six tokens."""
    return [ScoreRequest(ids(40, 7 * q), tuple(ids(1 + (a + q) % 6, 50 * q + a))) for q in range(5) for a in range(4)]


def assert_equal(model: Any, engine: HuggingFaceEngine, requests: list[ScoreRequest], **options: Any) -> None:
    scores = dict(engine.score(requests, **options))
    assert sorted(scores) == list(range(len(requests)))
    for index, request in enumerate(requests):
        expected, is_greedy = plain(model, request)
        assert list(scores[index].logprobs) == pytest.approx(expected, abs=1e-4), index
        assert scores[index].is_greedy == is_greedy


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("requests", [subjects(), continuations(), subjects() + continuations()], ids=len)
def test_equal_to_a_whole_forward_pass(llama: Any, padded: bool, batch_size: int, requests: list[ScoreRequest]) -> None:
    assert_equal(llama, HuggingFaceEngine(llama, batch_size=batch_size, padded=padded), requests)


def test_a_greedy_continuation_is_known_as_such(llama: Any) -> None:
    prompt = ids(20, 3)
    made = llama.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=5, pad_token_id=0, eos_token_id=None)[
        0, 20:
    ].tolist()
    engine = HuggingFaceEngine(llama)
    found = dict(engine.score([ScoreRequest(prompt, tuple(made)), ScoreRequest(prompt, (*made[:-1], made[-1] + 1))]))
    assert (found[0].is_greedy, found[1].is_greedy) == (True, False)


def test_a_shared_beginning_is_read_once(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HuggingFaceEngine(llama, batch_size=4)
    seen: list[int] = []
    run = LineForward._run

    def watched(self: LineForward, tokens: Any, *rest: Any) -> torch.Tensor:
        seen.append(len(tokens))
        return run(self, tokens, *rest)

    monkeypatch.setattr(LineForward, "_run", watched)
    requests = subjects()
    list(engine.score(requests))
    ends = sum(len(request.prompt_ids) - 60 for request in requests)
    assert sum(seen) == 3 * 60 + ends
    assert len(seen) == 3 * (1 + 2)  # the beginning, then 4 and 3 rows, of each subject


def test_groups_hold_each_request_once_and_never_a_scored_position() -> None:
    rng = random.Random(0)
    for _ in range(50):
        stems = [ids(rng.randrange(1, 60), seed) for seed in range(3)]
        requests = [
            ScoreRequest([*rng.choice(stems), *ids(rng.randrange(1, 9), rng.randrange(4))], tuple(ids(2, i % 3)))
            for i in range(rng.randrange(1, 25))
        ]
        groups = plan_groups(requests)
        assert sorted(i for group in groups for i in group.members) == list(range(len(requests)))
        for group in groups:
            rows = [requests[i].run_ids for i in group.members]
            assert all(row[: group.shared] == rows[0][: group.shared] for row in rows)
            assert all(
                group.shared <= len(row) - requests[i].n_wanted for i, row in zip(group.members, rows, strict=True)
            )
        spent = sum(g.shared + sum(len(requests[i].run_ids) - g.shared for i in g.members) for g in groups)
        assert spent <= sum(len(request.run_ids) for request in requests)


def test_a_long_row_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for perplexities: more scored positions than go through the model at once."""
    model = make_llama(max_position_embeddings=2 * PIECE)
    row = ids(PIECE + 200, 9)
    engine = HuggingFaceEngine(model)
    widths: list[int] = []
    forward = LineForward.forward

    def watched(self: LineForward, chunks: Any, counts: Any = None) -> torch.Tensor:
        widths.append(sum(counts))
        return forward(self, chunks, counts)

    monkeypatch.setattr(LineForward, "forward", watched)
    assert_equal(model, engine, [ScoreRequest(row[:1], tuple(row[1:])), ScoreRequest(row[:600], tuple(row[600:]))])
    assert max(widths) <= PIECE


@pytest.mark.parametrize("padded", [False, True])
def test_a_live_adapter_scores(tmp_path: Any, padded: bool) -> None:
    from peft import PeftModel

    folder = make_adapter(tmp_path, 1)
    engine = HuggingFaceEngine(make_llama(), padded=padded)
    engine.add_adapter("a", folder)
    expected = PeftModel.from_pretrained(make_llama(), str(folder)).eval()
    assert_equal(expected, engine, subjects(2, 3), adapter="a")
    assert_equal(make_llama(), engine, subjects(2, 3))


def test_what_cannot_be_scored_is_refused(llama: Any) -> None:
    engine = HuggingFaceEngine(llama)
    for request, words in (
        (ScoreRequest([], candidates=(1,)), "without tokens"),
        (ScoreRequest([1]), "either a continuation or candidates"),
        (ScoreRequest(ids(200, 1), candidates=(1,)), "context holds 128"),
    ):
        with pytest.raises(ModelError, match=words):
            list(engine.score([request]))
    assert list(engine.score([])) == []
