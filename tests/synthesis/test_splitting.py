"""Which groups are held out."""

from __future__ import annotations

import pytest

from tunesmith.synthesis.splitting import held_out


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_of_many_groups_the_share_is_held_out(share: float) -> None:
    groups = [f"g{number}" for number in range(200) for _ in range(1 + number % 5)]
    held = held_out(groups, share, 1)
    assert sum(name in held for name in groups) / len(groups) == pytest.approx(share, abs=0.01)
    assert held == held_out(reversed(groups), share, 1) != held_out(groups, share, 2)


def test_few_groups() -> None:
    assert held_out(["a"] * 5, 0.1, 0) == set()
    assert held_out([], 0.1, 0) == set()
    assert held_out(["a", "b"], 0.0, 0) == set()
    assert held_out(["a"] * 9 + ["b"], 0.1, 0) == {"b"}
    assert held_out(["a"] * 9 + ["b"] * 8 + ["c"] * 5, 0.1, 0) == {"c"}, "the smallest, where all are too large"
    assert len(held_out(["a", "b"], 0.99, 0)) == 1, "something is left to train on"
