"""Losses of pairs and of judged answers against numbers worked by hand, their limits, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.lazy import lookup
from tunesmith.objectives import dpo, kto, orpo, rm, simpo
from tunesmith.objectives.base import OBJECTIVES, LossOutput, Objective, objective_name

LN3 = math.log(3.0)


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def build(**keys: Any) -> Objective:
    config = RunConfig.from_dict(keys)
    made: Objective = lookup(OBJECTIVES, objective_name(config.stage, config.pref_loss)).build(config)
    return made


def metric(output: LossOutput, name: str) -> float:
    total, count = output.metrics[name]
    return float(total) / count


# -- the functions ---------------------------------------------------------------------------------------------------


def test_sigmoid_loss_by_hand() -> None:
    """Margin ln 3 / 0.5 at beta 0.5: sigma(ln 3) = 3/4, loss ln(4/3). With smoothing 1/4: 3/4 ln(4/3) + 1/4 ln 4."""
    margin = torch.tensor([LN3 / 0.5], dtype=torch.float64)
    assert dpo.sigmoid_loss(margin, 0.5).item() == pytest.approx(math.log(4 / 3))
    smoothed = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert dpo.sigmoid_loss(margin, 0.5, 0.25).item() == pytest.approx(smoothed)


def test_policy_equal_to_reference_is_the_known_limit() -> None:
    """At margin 0: sigmoid log 2 (whatever the smoothing), hinge 1, IPO 1 / (4 beta^2), paired KTO 1/2."""
    zero = torch.zeros(1, dtype=torch.float64)
    for smoothing in (0.0, 0.3):
        assert dpo.sigmoid_loss(zero, 0.1, smoothing).item() == pytest.approx(math.log(2), abs=1e-15)
    assert dpo.hinge_loss(zero, 0.1).item() == 1
    assert dpo.ipo_loss(zero, 0.1).item() == pytest.approx(25)
    assert dpo.kto_pair_loss(zero, zero, (zero, zero), 0.1).item() == 0.5


def test_hinge_and_ipo_by_hand() -> None:
    """Hinge at beta 0.1: margin 4 gives 1 - 0.4, margin 20 gives 0. IPO at beta 0.25: (3 - 2)^2 = 1."""
    margins = torch.tensor([4.0, 20.0])
    assert dpo.hinge_loss(margins, 0.1).tolist() == pytest.approx([0.6, 0.0])
    assert dpo.ipo_loss(torch.tensor([3.0]), 0.25).item() == pytest.approx(1.0)


def test_kto_pair_by_hand() -> None:
    """r_c = 2, r_r = -1, KL of chosen 1, of rejected 0, beta 1: (1 - sigma(2)) / 2 + (1 - sigma(1 + 1)) / 2."""
    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    found = dpo.kto_pair_loss(torch.tensor([2.0]), torch.tensor([-1.0]), (one, zero), 1.0)
    assert found.item() == pytest.approx(1 - sigma(2))


def test_bco_by_hand() -> None:
    """Rewards ln 3 and -ln 3 around 0: -2 ln(3/4); around ln 3: -ln(1/2) - ln sigma(2 ln 3) = ln 2 + ln(10/9)."""
    rewards = torch.tensor([[LN3, -LN3]], dtype=torch.float64)
    assert dpo.bco_loss(rewards, 0.0).item() == pytest.approx(2 * math.log(4 / 3))
    assert dpo.bco_loss(rewards, LN3).item() == pytest.approx(math.log(2) + math.log(10 / 9))


def test_orpo_by_hand() -> None:
    """p_c = 3/4, p_r = 1/4: odds 3 and 1/3, ratio 9, sigma(ln 9) = 9/10, loss ln(10/9)."""
    chosen, rejected = (torch.tensor([math.log(p)], dtype=torch.float64) for p in (0.75, 0.25))
    assert orpo.log_odds(chosen).item() == pytest.approx(LN3)
    assert orpo.odds_ratio_loss(chosen, rejected).item() == pytest.approx(math.log(10 / 9))
    nearly_one = torch.tensor([-1e-12], dtype=torch.float64)
    assert orpo.log_odds(nearly_one).item() == pytest.approx(-math.log(1e-12), rel=1e-9)


def test_simpo_by_hand() -> None:
    """beta 2, difference 1, gamma 2 - ln 3: sigma(ln 3), loss ln(4/3)."""
    found = simpo.simpo_loss(torch.tensor([-1.0]), torch.tensor([-2.0]), 2.0, 2 - LN3)
    assert found.item() == pytest.approx(math.log(4 / 3), rel=1e-6)


def test_kto_by_hand_and_its_limit() -> None:
    """beta 1, KL 1: a good answer of r = 1 + ln 3 costs 1 - 3/4, a bad one of it 1 - 1/4; at r = KL both cost 1/2."""
    ratios = torch.tensor([1 + LN3, 1 + LN3, 1.0, 1.0])
    is_good = torch.tensor([True, False, True, False])
    found = kto.kto_loss(ratios, is_good, torch.tensor(1.0), 1.0)
    assert found.tolist() == pytest.approx([0.25, 0.75, 0.5, 0.5])


def test_ranking_loss_by_hand() -> None:
    """Scores ln 3 apart: ln(4/3); equal ones: ln 2."""
    found = rm.ranking_loss(torch.tensor([LN3, 5.0]), torch.tensor([0.0, 5.0]))
    assert found.tolist() == pytest.approx([math.log(4 / 3), math.log(2)])


@pytest.mark.parametrize(
    "function",
    [
        lambda c, r: dpo.sigmoid_loss(c - r, 0.3, 0.1),
        lambda c, r: dpo.hinge_loss(c - r, 0.1),
        lambda c, r: dpo.ipo_loss(c - r, 0.2),
        lambda c, r: dpo.kto_pair_loss(c, r, (torch.tensor(0.3), torch.tensor(0.1)), 0.4),
        lambda c, r: dpo.bco_loss(torch.stack([c, r], dim=1), 0.2),
        lambda c, r: orpo.odds_ratio_loss(c - 3, r - 3),
        lambda c, r: simpo.simpo_loss(c, r, 2.0, 0.5),
        lambda c, r: rm.ranking_loss(c, r),
        lambda c, r: kto.kto_loss(c, torch.tensor([True, False, True]), torch.tensor(0.2), 0.5) + r,
    ],
)
def test_gradients_are_those_of_finite_differences(function: Any) -> None:
    torch.manual_seed(0)
    logps = [torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(function, logps)


# -- the objectives over micro-batches -------------------------------------------------------------------------------

PAIR = [[-1.0, -2.0], [-3.0, -0.5, -1.5]]
REFERENCE = [[-1.5, -2.5], [-2.0, -0.5, -0.5]]


def test_dpo_over_tokens_by_hand(scored: Any) -> None:
    """Log-ratios: chosen -3 + 4 = 1, rejected -5 + 3 = -2; margin 3, beta 0.5: -ln sigma(1.5)."""
    output = build(stage="dpo", pref_beta=0.5).loss(scored(PAIR, REFERENCE, rows=1))
    assert output.loss_sum.item() == pytest.approx(-math.log(sigma(1.5)), rel=1e-5)
    expected = {
        "rewards/chosen": 0.5,
        "rewards/rejected": -1.0,
        "rewards/margins": 1.5,
        "rewards/accuracies": 1.0,
        "logps/chosen": -3.0,
        "logps/rejected": -5.0,
    }
    assert {name: metric(output, name) for name in expected} == pytest.approx(expected, rel=1e-5)
    output.loss_sum.backward()


def test_ipo_means_over_tokens(scored: Any) -> None:
    """Mean log-ratios 1/2 and -2/3, margin 7/6, beta 1: (7/6 - 1/2)^2 = 4/9."""
    output = build(stage="dpo", pref_loss="ipo", pref_beta=1.0).loss(scored(PAIR, REFERENCE, rows=1))
    assert output.loss_sum.item() == pytest.approx(4 / 9, rel=1e-5)


def test_ld_alpha_scales_what_is_beyond_the_shorter_answer(scored: Any) -> None:
    """alpha 0.5: rejected -3 - 0.5 - 0.75 = -4.25, log-ratio -1.25; margin 2.25. alpha 1 changes nothing."""
    half = build(stage="dpo", pref_beta=1.0, ld_alpha=0.5).loss(scored(PAIR, REFERENCE, rows=1))
    assert half.loss_sum.item() == pytest.approx(-math.log(sigma(2.25)), rel=1e-5)
    whole = build(stage="dpo", pref_beta=1.0, ld_alpha=1.0).loss(scored(PAIR, REFERENCE, rows=1))
    assert whole.loss_sum.item() == pytest.approx(-math.log(sigma(3)), rel=1e-5)


def test_kto_pair_reads_the_kl_of_the_step(scored: Any) -> None:
    """The first pass gives mean log-ratios (1, -2), clamped (1, 0); beta 1: 1 - sigma(1 - 0) and 1 - sigma(1 + 2)."""
    objective = build(stage="dpo", pref_loss="kto_pair", pref_beta=1.0)
    assert objective.baseline_parts == (0, 1)
    total, count = objective.baseline_sum(scored(PAIR, REFERENCE, rows=1))
    assert (total / count).tolist() == pytest.approx([1.0, -2.0], rel=1e-5)
    output = objective.loss(scored(PAIR, REFERENCE, rows=1, baseline=total / count))
    assert output.loss_sum.item() == pytest.approx((1 - sigma(1) + 1 - sigma(3)) / 2, rel=1e-5)


def test_ftx_adds_the_mean_token_loss_of_the_chosen_answer(scored: Any) -> None:
    """Chosen: mean 1.5 nats; with weight 2 the loss grows by 3."""
    for loss in ("sigmoid", "orpo", "simpo"):
        keys = {"stage": "dpo", "pref_loss": loss}
        plain = build(**keys).loss(scored(PAIR, REFERENCE, rows=1))
        more = build(**keys, pref_ftx=2.0).loss(scored(PAIR, REFERENCE, rows=1))
        assert more.loss_sum.item() - plain.loss_sum.item() == pytest.approx(3.0, rel=1e-5), loss
        assert metric(more, "sft_loss") == pytest.approx(1.5, rel=1e-5)


def test_orpo_and_simpo_over_tokens_by_hand(scored: Any) -> None:
    """Mean log-probabilities -1.5 and -5/3; neither needs a reference."""
    c, r = -1.5, -5 / 3
    odds = [value - math.log(1 - math.exp(value)) for value in (c, r)]
    output = build(stage="dpo", pref_loss="orpo", pref_beta=0.5).loss(scored(PAIR, rows=1))
    assert output.loss_sum.item() == pytest.approx(1.5 - 0.5 * math.log(sigma(odds[0] - odds[1])), rel=1e-5)
    output = build(stage="dpo", pref_loss="simpo", pref_beta=2.0, simpo_gamma=0.25).loss(scored(PAIR, rows=1))
    assert output.loss_sum.item() == pytest.approx(-math.log(sigma(2 * (c - r) - 0.25)), rel=1e-5)
    for loss in ("orpo", "simpo"):
        assert build(stage="dpo", pref_loss=loss).reference == "none"


def test_bco_is_mixed_in_and_shifts_by_the_steps_before(scored: Any) -> None:
    """Rewards 1 and -2 (beta 1): the first step shifts by 0, the next by the mean -1/2 of both answers."""
    objective = build(stage="dpo", pref_beta=1.0, pref_bco_weight=0.5)
    plain = -math.log(sigma(3))

    def mixed(shift: float) -> float:
        return (plain + 0.5 * (-math.log(sigma(1 - shift)) - math.log(sigma(2 + shift)))) / 1.5

    output = objective.loss(scored(PAIR, REFERENCE, rows=1))
    assert output.loss_sum.item() == pytest.approx(mixed(0.0), rel=1e-5)
    objective.observe({name: (float(total), count) for name, (total, count) in output.metrics.items()})
    again = build(stage="dpo", pref_beta=1.0, pref_bco_weight=0.5)
    again.load_state(objective.state())
    for one in (objective, again):
        assert one.loss(scored(PAIR, REFERENCE, rows=1)).loss_sum.item() == pytest.approx(mixed(-0.5), rel=1e-5)


def test_kto_weighs_good_and_bad_answers(scored: Any) -> None:
    """Log-ratios 1 (good) and -2 (bad), KL 0.5, beta 1, weights 2 and 3: 2 (1 - sigma(0.5)) + 3 (1 - sigma(2.5))."""
    objective = build(stage="kto", pref_beta=1.0, kto_chosen_weight=2.0, kto_rejected_weight=3.0)
    facts = {"rows": 2, "desirable": [True, False]}
    output = objective.loss(scored(PAIR, REFERENCE, **facts, baseline=torch.tensor(0.5)))
    assert output.loss_sum.item() == pytest.approx(2 * (1 - sigma(0.5)) + 3 * (1 - sigma(2.5)), rel=1e-5)
    assert metric(output, "kl") == 0.5
    assert metric(output, "rewards/chosen") == pytest.approx(1.0, rel=1e-5)
    assert metric(output, "logps/rejected") == pytest.approx(-5.0, rel=1e-5)
    assert objective.derived({"rewards/chosen": 1.0, "rewards/rejected": -2.0}) == {"rewards/margins": 3.0}
    below = objective.loss(scored(PAIR, REFERENCE, **facts, baseline=torch.tensor(-4.0)))
    at_zero = objective.loss(scored(PAIR, REFERENCE, **facts, baseline=torch.tensor(0.0)))
    assert below.loss_sum.item() == at_zero.loss_sum.item()


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "orpo", "simpo"])
def test_a_weight_of_two_is_the_pair_twice(scored: Any, loss: str) -> None:
    objective = build(stage="dpo", pref_loss=loss)
    twice = objective.loss(scored(PAIR * 2, REFERENCE * 2, rows=2))
    weighed = objective.loss(scored(PAIR, REFERENCE, rows=1, weights=[2.0]))
    assert twice.loss_sum.item() == pytest.approx(weighed.loss_sum.item(), rel=1e-6)
    assert twice.metrics["rewards/margins"][1] == weighed.metrics["rewards/margins"][1] == 2


def test_length_bias_tells_length_from_quality(scored: Any) -> None:
    """Two pairs: right where the chosen answer is the longer one, wrong where it is the shorter one: bias 1."""
    pairs = [[-1.0, -1.0], [-3.0], [-5.0], [-1.0, -1.0]]
    objective = build(stage="dpo", pref_loss="simpo")
    output = objective.loss(scored(pairs, rows=2))
    means = {name: float(total) / count for name, (total, count) in output.metrics.items()}
    assert objective.derived(means) == {"rewards/length_bias": 1.0}
    assert metric(output, "rewards/accuracies") == 0.5


def test_reward_accuracy_and_loss_from_a_value_head() -> None:
    """Hidden states are the scores: (2, 1) right, (0, 4) wrong."""
    from tunesmith.objectives.base import Scored

    hidden = torch.tensor([[2.0], [1.0], [0.0], [4.0]], requires_grad=True)
    output = rm.RewardObjective().loss(
        Scored(
            hidden,
            lambda _: _,
            torch.zeros(4),
            n_sequences=4,
            per_row={"weight": torch.ones(2)},
            value_head=lambda states: states.squeeze(-1),
        )
    )
    assert output.loss_sum.item() == pytest.approx(-math.log(sigma(1)) - math.log(sigma(-4)), rel=1e-6)
    assert metric(output, "accuracy") == 0.5
    output.loss_sum.backward()
    assert hidden.grad is not None
    assert hidden.grad[:, 0].tolist() == pytest.approx([-sigma(-1), sigma(-1), -sigma(4), sigma(4)], rel=1e-5)
