"""Row weights: 0 is as if the row were not there, 1 is the default, others reach the loss."""

from __future__ import annotations

import json

import pytest
import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data import pipeline
from tunesmith.data.template import build_template
from tunesmith.objectives.base import Scored
from tunesmith.objectives.sft import SupervisedObjective
from tunesmith.training.batches import StepRows, collate, micro_batches

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})


@pytest.fixture
def prepare(tmp_path, byte_tokenizer):
    def make(rows, **keys):
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        given = {"do_train": True, "dataset": str(tmp_path / "rows.json"), **keys}
        return pipeline.prepare(RunConfig.from_dict(given), byte_tokenizer, TEMPLATE)

    return make


def row(index, **more):
    return {"instruction": f"question {index}", "output": f"answer {index}", **more}


def items(rows):
    return [rows[index] for index in range(len(rows))]


@pytest.mark.parametrize("keys", [{}, {"max_samples": 4}, {"packing": True, "cutoff_len": 60}])
@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.0"])
def test_weight_0_equals_the_row_removed(prepare, keys, zero):
    weighted = prepare([row(index, weight=zero if index in (1, 4) else 1) for index in range(9)], **keys)
    removed = prepare([row(index) for index in range(9) if index not in (1, 4)], **keys)
    assert items(weighted.train) == items(removed.train)
    assert weighted.train.digest() == removed.train.digest()
    report = weighted.report.datasets[0]
    assert report.read == report.kept == len(removed.train.rows)
    assert "of weight 0" in report.accounting()


def test_weight_1_is_the_default(prepare):
    rows = [row(index) for index in range(5)]
    assert items(prepare([{**one, "weight": 1} for one in rows]).train) == items(prepare(rows).train)


def test_other_weights_are_handed_on_and_kept_in_the_cache(prepare):
    rows = [row(0, weight=0.5), row(1), row(2, weight="2")]
    for _ in range(2):
        found = items(prepare(rows).train)
        assert [item.get("weights") for item in found] == [[0.5], None, [2.0]]
    packed = items(prepare(rows, packing=True, cutoff_len=100).train)
    assert sorted(weight for item in packed for weight in item["weights"]) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("weight", [-1, "much", True, float("inf")])
def test_a_weight_that_is_none_is_a_rejected_row_where_the_entry_names_the_column(prepare, tmp_path, weight):
    columns = {"prompt": "instruction", "response": "output", "weight": "weight"}
    info = {"x": {"file_name": "rows.json", "columns": columns}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"column weight: .* where the row's weight is expected"):
        prepare([row(0, weight=weight), row(1)], dataset="x", dataset_dir=str(tmp_path))


def test_a_column_of_that_name_with_other_content_weighs_nothing(prepare):
    assert "weights" not in prepare([row(0, weight="70 kg"), row(1, weight="65 kg")]).train[0]


def test_an_entry_without_columns_takes_the_column_and_says_so(prepare, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": {"file_name": "rows.json"}}))
    keys = {"dataset": "x", "dataset_dir": str(tmp_path)}
    assert prepare([row(0, weight=0.5, input="")], **keys).train[0]["weights"] == [0.5]


def item(weight, ids=(1, 2, 3)):
    ids = list(ids)
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "lengths": [3], "rows": [0], "weights": [weight]}


def loss_of(step):
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 8, bias=False)
    table = torch.randn(8, 4)
    total = torch.zeros(())
    for batch in micro_batches(step, 100):
        hidden = table[batch.input_ids[batch.positions]].requires_grad_()
        total = total + SupervisedObjective().loss(Scored(hidden, head, batch.targets, batch.weights)).loss_sum
    total.backward()
    return total.detach() / step.n_items, head.weight.grad / step.n_items


def test_a_weight_counts_as_that_many_rows():
    """Weight 3 and weight 1: (3 a + b) / (3 n_a + n_b), the loss of the first row three times beside the second."""
    weighted = collate([item(3.0), item(1.0, (4, 5, 6))])
    repeated = collate([item(1.0)] * 3 + [item(1.0, (4, 5, 6))])
    assert (weighted.n_items, weighted.n_trained, repeated.n_items) == (8.0, 4, 8)
    for mine, theirs in zip(loss_of(weighted), loss_of(repeated), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_equal_weights_change_nothing_but_their_scale():
    loss, gradient = loss_of(collate([item(0.25), item(0.25, (4, 5, 6))]))
    plain_loss, plain_gradient = loss_of(collate([item(1.0), item(1.0, (4, 5, 6))]))
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(gradient, plain_gradient)


def test_weight_1_leaves_no_trace_in_a_micro_batch():
    step = collate([item(1.0), item(1.0, (4, 5, 6))])
    assert isinstance(step, StepRows)
    assert step.n_items == 4
    assert isinstance(step.n_items, int)
    assert all(batch.weights is None for batch in micro_batches(step, 100))
