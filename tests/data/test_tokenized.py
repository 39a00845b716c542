"""tokenized_path: kept, taken again, refused where it does not fit; folders of `datasets`."""

from __future__ import annotations

import copy
import json

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.core.types import IGNORE_INDEX
from tunesmith.data import pipeline
from tunesmith.data.template import build_template

PLAIN = {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]}
TEMPLATE = build_template("plain", PLAIN)


@pytest.fixture
def folder(tmp_path):
    rows = [{"instruction": f"question {index}", "output": "yes" * (index + 1)} for index in range(10)]
    (tmp_path / "ten.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "two.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:2]))
    return tmp_path


@pytest.fixture
def prepare(folder, byte_tokenizer):
    def make(template=TEMPLATE, tokenizer=byte_tokenizer, **keys):
        defaults = {"do_train": True, "dataset": str(folder / "ten.jsonl"), "tokenized_path": str(folder / "kept")}
        given = {name: value for name, value in {**defaults, **keys}.items() if value is not None}
        return pipeline.prepare(RunConfig.from_dict(given), tokenizer, template)

    return make


def items(rows):
    return [rows[index] for index in range(len(rows))]


def test_the_second_run_takes_what_the_first_kept(prepare, folder, monkeypatch):
    first = prepare(val_size=2, cutoff_len=100)
    monkeypatch.setattr(pipeline, "run_jobs", None)
    second = prepare(val_size=2, cutoff_len=100)
    assert items(first.train) == items(second.train)
    assert items(first.eval) == items(second.eval)
    assert first.report == second.report
    assert first.train.digest() == second.train.digest()


def test_the_folder_alone_is_enough(prepare):
    first = prepare(val_size=2, cutoff_len=30)
    second = prepare(dataset=None)
    assert items(first.train) == items(second.train)
    assert len(second.eval) == 2


def test_packing_and_training_keys_are_free(prepare):
    first = prepare(cutoff_len=60)
    packed = prepare(packing=True, learning_rate=1e-3)
    assert len(packed.train) < len(first.train)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"cutoff_len": 50}, "cutoff_len is 50 here, the folder was made with 2048"),
        ({"mask_history": True, "val_size": 3}, "mask_history is True"),
        ({"val_size": 3}, "val_size is 3"),
        ({"dataset": "two"}, "dataset is"),
        ({"default_system": "s"}, "default_system is 's' here"),
        ({"template": build_template("plain", {**PLAIN, "user": "V{{content}}>"})}, "the template is not the one"),
    ],
)
def test_a_mismatch_names_the_keys(prepare, folder, keys, expected):
    prepare()
    if "dataset" in keys:
        keys = {"dataset": str(folder / "two.jsonl")}
    with pytest.raises(DataError, match=expected) as caught:
        prepare(**keys)
    assert str(folder / "kept") in str(caught.value)


def test_another_tokenizer_and_changed_data_are_mismatches(prepare, folder, byte_tokenizer):
    prepare()
    grown = copy.deepcopy(byte_tokenizer)
    grown.add_tokens(["new"])
    with pytest.raises(DataError, match="the tokenizer is not the one"):
        prepare(tokenizer=grown)
    (folder / "ten.jsonl").write_text((folder / "ten.jsonl").read_text().replace("yes", "yet", 1))
    with pytest.raises(DataError, match=r"ten.jsonl has changed since"):
        prepare()


def test_data_that_is_gone_is_said_and_does_no_harm(prepare, folder):
    first = prepare()
    (folder / "ten.jsonl").unlink()
    assert items(prepare().train) == items(first.train)


def test_evaluation_sets_keep_their_names(prepare, folder):
    keys = {"eval_dataset": str(folder / "two.jsonl"), "eval_on_each_dataset": True}
    assert {name: len(rows) for name, rows in prepare(**keys).eval.items()} == {"two": 2}
    assert {name: len(rows) for name, rows in prepare(**keys).eval.items()} == {"two": 2}


def test_a_damaged_folder_is_refused(prepare, folder):
    prepare()
    path = folder / "kept" / "0" / "ids.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="is damaged"):
        prepare()


def test_a_folder_of_something_else_is_refused(prepare, folder):
    (folder / "kept").mkdir()
    (folder / "kept" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="is not tokenized data"):
        prepare()


def test_an_empty_folder_is_written(prepare, folder):
    (folder / "kept").mkdir()
    assert len(prepare().train) == 10
    assert (folder / "kept" / "tunesmith_tokenized.json").is_file()


@pytest.fixture
def foreign(folder):
    from datasets import Dataset, DatasetDict

    columns = {
        "input_ids": [[5, 6, 7], [8, 9]],
        "labels": [[-100, 6, 7], [-100, 3]],
        "attention_mask": [[1] * 3, [1] * 2],
    }

    def write(as_dict=True, **changes):
        data = Dataset.from_dict({**columns, **changes})
        (DatasetDict({"train": data, "validation": data.select([0])}) if as_dict else data).save_to_disk(
            str(folder / "kept")
        )

    return write


def test_folders_of_datasets_are_read(prepare, foreign):
    foreign()
    found = prepare(dataset=None)
    assert [item["input_ids"] for item in items(found.train)] == [[5, 6, 7], [8, 9]]
    assert [item["labels"] for item in items(found.train)] == [[IGNORE_INDEX, 6, 7], [IGNORE_INDEX, 3]]
    assert len(found.eval) == 1


def test_a_single_dataset_is_the_training_set(prepare, foreign):
    foreign(as_dict=False)
    assert len(prepare(dataset=None).train) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"position_ids": [[0, 1, 2], [0, 1]]}, "packed by another program"),
        ({"labels": [[1], [2]]}, "3 input_ids, 1 labels"),
        ({"labels": [[-100] * 3, [-100] * 2]}, "no trained token"),
    ],
)
def test_foreign_rows_that_do_not_fit(prepare, foreign, changes, expected):
    foreign(**changes)
    with pytest.raises(DataError, match=expected):
        prepare(dataset=None)
