"""Cutting a step into micro-batches: every row once, budgets kept, labels shifted inside their own row."""

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.types import IGNORE_INDEX
from tunesmith.training.batches import Row, StepRows, collate, lay_end_to_end, micro_batches, plan_micro_batches


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 512))
def test_the_plan_holds_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    plan = plan_micro_batches(lengths, budget)
    assert sorted(index for group in plan for index in group) == list(range(len(lengths)))
    for group in plan:
        total = sum(lengths[index] for index in group)
        assert total <= budget or len(group) == 1
    assert plan == plan_micro_batches(lengths, budget)


def test_first_fit_decreasing_by_hand() -> None:
    """Budget 10: 8 | 7 2 | 5 5: three micro-batches, the 2 fits behind the 8 first."""
    assert plan_micro_batches([5, 8, 2, 7, 5], 10) == [[1, 2], [3], [0, 4]]


def test_targets_are_the_trained_tokens_of_the_same_row() -> None:
    rows = [Row([10, 11, 12], [IGNORE_INDEX, 11, 12], 0), Row([20, 21], [20, 21], 1)]
    batch = lay_end_to_end(rows)
    assert batch.input_ids.tolist() == [10, 11, 12, 20, 21]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.positions.tolist() == [0, 1, 3]  # token 20 opens its row: nothing of row 0 may predict it
    assert batch.targets.tolist() == [11, 12, 21]


def test_packed_items_come_apart_and_count_the_same() -> None:
    packed = {"input_ids": [1, 2, 3, 4], "labels": [-100, 2, 3, 4], "lengths": [2, 2], "rows": [5, 9]}
    step = collate([packed])
    assert [(list(row.input_ids), row.number) for row in step.rows] == [([1, 2], 5), ([3, 4], 9)]
    assert step.n_items == 2  # token 2 and token 4; token 3 opens a row
    assert step.n_tokens == 4


def test_rows_that_train_nothing_cost_nothing() -> None:
    step = StepRows([Row([1, 2], [-100, -100], 0), Row([1, 2], [-100, 2], 1)])
    batches = micro_batches(step, 512)
    assert len(batches) == 1
    assert batches[0].row_lengths == (2,)
