"""The probe and its verdict: sound items, tests held against scipy and simulated, a loss planted among null runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.conftest import make_tiny_llama

from tunesmith.evaluation.forgetting import (
    ALPHA,
    FORGOTTEN,
    KEPT,
    MARGIN,
    UNCLEAR,
    judge,
    margin_test,
    t_quantile,
    t_tail,
    table_lines,
)  # fmt: skip
from tunesmith.evaluation.probe_items import FIELDS, ProbeScore, ask_probe, load_probe
from tunesmith.inference.hf import HuggingFaceEngine

ITEMS = load_probe()


def scores(worths: dict[str, float]) -> dict[str, ProbeScore]:
    """Texts of one token with these worths."""
    return {name: ProbeScore(name, name.split("-")[0], (worth,), 1) for name, worth in worths.items()}


def test_the_probe_is_large_and_sound() -> None:
    assert len(ITEMS) >= 200
    assert len({item.id for item in ITEMS}) == len(ITEMS)
    assert len({(item.prompt, item.answers[0]) for item in ITEMS}) == len(ITEMS)
    counts = {field: sum(item.field == field for item in ITEMS) for field in FIELDS}
    assert min(counts.values()) >= 30
    for item in ITEMS:
        assert len(set(item.answers)) == len(item.answers)
        assert all(answer and answer == answer.strip() for answer in item.answers) or not item.prompt
        assert len(item.answers) > 1 or len(item.answers[0]) >= 16
    assert sum(any("一" <= letter <= "鿿" for letter in item.prompt + item.answers[0]) for item in ITEMS) >= 30


def test_sums_of_the_probe_are_right() -> None:
    sums = [item for item in ITEMS if item.prompt.endswith(" =")]
    assert len(sums) >= 25
    for item in sums:
        first, sign, second, _ = item.prompt.split()
        right = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[sign](int(first), int(second))
        assert int(item.answers[0]) == right
        assert right not in map(int, item.answers[1:])


def test_worth_by_hand() -> None:
    """Right 0.2 against wrong 0.1 and 0.1 of the mass: log(1/2). A text of 4 tokens and -6 nats: -1.5 a token."""
    choice = ProbeScore("a", "knowledge", (math.log(0.2), math.log(0.1), math.log(0.1)), 1)
    assert choice.worth == pytest.approx(math.log(0.5))
    assert choice.is_right
    assert not ProbeScore("a", "knowledge", (-3.0, -2.0), 1).is_right
    text = ProbeScore("b", "language", (-6.0,), 4)
    assert (text.worth, text.is_right) == (-1.5, None)
    assert ProbeScore.of_row(choice.as_row()) == choice


@pytest.mark.parametrize("freedom", [1, 2, 5, 33, 241])
def test_students_t_against_scipy(freedom: int) -> None:
    for t in (-3.0, -0.5, 0.0, 0.7, 2.33, 4.0, 8.0):
        assert t_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-9)
    assert t_quantile(ALPHA, freedom) == pytest.approx(stats.t.isf(ALPHA, freedom), rel=1e-6)


@pytest.mark.parametrize("shape", ["normal", "outliers", "skewed", "skewed to gains"])
@pytest.mark.parametrize("count", [34, 242])
def test_false_alarms_at_the_margin_are_as_seldom_as_promised(shape: str, count: int) -> None:
    """A true mean of exactly MARGIN, the worst harmless case: p falls below ALPHA in about ALPHA of the draws."""
    rng = np.random.default_rng(5)
    noise = {
        "normal": lambda: rng.normal(0, 0.3, count),
        "outliers": lambda: np.clip(rng.standard_t(3, count) * 0.2, -3, 3),
        "skewed": lambda: rng.exponential(0.3, count) - 0.3,
        "skewed to gains": lambda: 0.3 - rng.exponential(0.3, count),
    }[shape]
    alarms = sum(margin_test((MARGIN + noise()).tolist()).p_value < ALPHA for _ in range(2000))
    assert alarms / 2000 < 0.022, "ALPHA, what the correction leaves of skewness, and three standard errors"


def test_verdicts_by_hand() -> None:
    names = [f"{field}-{i}" for field in FIELDS for i in range(35)]
    rng = np.random.default_rng(0)
    before = {name: float(-1 + 0.1 * rng.normal()) for name in names}

    def verdict(loss: dict[str, float], noise: float = 0.05) -> Any:
        after = {name: worth - loss.get(name.split("-")[0], 0) + noise * rng.normal() for name, worth in before.items()}
        return judge(scores(before), scores(after))

    assert verdict({}).words == KEPT
    everything = verdict(dict.fromkeys(FIELDS, 0.5))
    assert everything.words == FORGOTTEN
    assert everything.forgotten == ("all", *FIELDS)
    one = verdict({"chinese": 1.0})
    assert one.forgotten[-1] == "chinese"
    assert {"knowledge", "language"}.isdisjoint(one.forgotten)
    assert "chinese" in table_lines(one)[0]
    assert verdict(dict.fromkeys(FIELDS, 0.09)).words != FORGOTTEN, "a certain loss below the margin is harmless"
    assert verdict(dict.fromkeys(FIELDS, 0.1), noise=1.0).words == UNCLEAR
    gain = verdict(dict.fromkeys(FIELDS, -2.0))
    assert gain.words == KEPT
    assert gain.losses[0].loss == pytest.approx(-2.0, abs=0.02)


def test_one_item_cannot_decide() -> None:
    before = scores({f"knowledge-{i}": -1.0 for i in range(60)})
    after = scores({f"knowledge-{i}": -1.0 - 500.0 * (i == 0) for i in range(60)})
    assert judge(before, after).words != FORGOTTEN


# -- a tiny model that learned a third of the probe, tuned further

THIRD = ITEMS[::3]


def batches(texts: list[str], tokenizer: Any, generator: torch.Generator) -> Iterator[torch.Tensor]:
    rows = [[1, *tokenizer.encode(text)][:96] for text in texts]
    while True:
        chosen = [rows[i] for i in torch.randint(0, len(rows), (16,), generator=generator).tolist()]
        width = max(map(len, chosen))
        yield torch.tensor([row + [-100] * (width - len(row)) for row in chosen])


def train(model: Any, texts: list[str], tokenizer: Any, steps: int, rate: float, seed: int) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    source = batches(texts, tokenizer, torch.Generator().manual_seed(seed))
    model.train()
    for _ in range(steps):
        labels = next(source)
        loss = model(input_ids=labels.clamp(min=0), attention_mask=(labels >= 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def learned(tiny_tokenizer: Any) -> tuple[Any, dict[str, ProbeScore]]:
    """A model that knows the probe well enough to lose something, and what it makes of the probe."""
    texts = [f"{item.prompt} {item.answers[0]}" if item.prompt else item.answers[0] for item in THIRD]
    model = train(make_tiny_llama(hidden_size=64, intermediate_size=128), texts, tiny_tokenizer, 250, 4e-3, 0)
    found = probe(model, tiny_tokenizer)
    right = [score.is_right for score in found.values() if score.is_right is not None]
    assert sum(right) / len(right) > 0.5
    return model, found


def probe(model: Any, tokenizer: Any) -> dict[str, ProbeScore]:
    found = {score.id: score for score in ask_probe(HuggingFaceEngine(model, batch_size=32), tokenizer, THIRD)}
    return {item.id: found[item.id] for item in THIRD}


NEUTRAL = [f"The {a} stands beside the {b}." for a in ("cat", "lamp", "boat", "tree") for b in ("door", "lake", "wall")]


@pytest.mark.parametrize("seed", range(20))
def test_null_runs_are_not_flagged(learned: Any, tiny_tokenizer: Any, seed: int) -> None:
    """Ten runs on neutral sentences at a small rate; ten random steps as long as such a run's."""
    model, before = learned
    tuned = train(deepcopy(model), NEUTRAL, tiny_tokenizer, 5, 1e-4, seed)
    if seed % 2:
        generator = torch.Generator().manual_seed(seed)
        for old, new in zip(model.parameters(), tuned.parameters(), strict=True):
            step = torch.randn(old.shape, generator=generator)
            new.data = old.data + step * (new.data - old.data).norm() / step.norm()
    assert any((a != b).any() for a, b in zip(model.parameters(), tuned.parameters(), strict=True))
    assert judge(before, probe(tuned, tiny_tokenizer)).words == KEPT


def test_a_run_that_overfits_is_flagged(learned: Any, tiny_tokenizer: Any) -> None:
    model, before = learned
    tuned = train(deepcopy(model), NEUTRAL[:2], tiny_tokenizer, 40, 4e-3, 0)
    verdict = judge(before, probe(tuned, tiny_tokenizer))
    assert verdict.words == FORGOTTEN
    assert "all" in verdict.forgotten
    assert verdict.losses[0].right_after < verdict.losses[0].right_before
