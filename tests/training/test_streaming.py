"""Streams: the same weights as without, exact resumption, order within a window, and what stops them."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.data.conftest import make_byte_tokenizer
from tests.training.test_trainer import StopAt, make_trainer, weights

from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, DataError, TrainingError
from tunesmith.data import cache, pipeline, stream
from tunesmith.data.template import build_template
from tunesmith.training.sampling import WindowSampler, check_batches, raise_for_worker

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"instruction": f"question {index}", "output": "yes" * (index % 5 + 1)} for index in range(23)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "few.csv").write_text("instruction,output\n" + "".join(f"f{index},no\n" for index in range(7)))
    lines = [json.dumps(row) for row in rows]
    lines[21] = "{broken"
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    return tmp_path


def prepare(data: Path, name: str = "rows.jsonl", **keys: Any) -> Any:
    names = ",".join(str(data / part) for part in name.split(","))
    config = RunConfig.from_dict({"do_train": True, "dataset": names, "streaming": True, **keys})
    return pipeline.prepare(config, make_byte_tokenizer(), TEMPLATE)


def items(rows: Any) -> list[Any]:
    return [rows[index] for index in range(len(rows))]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "few.csv", "rows.json,few.csv,rows.jsonl"])
@pytest.mark.parametrize("keys", [{}, {"val_size": 3}, {"max_samples": 5}, {"cutoff_len": 20}])
def test_rows_are_those_without_streaming(data: Path, name: str, keys: dict[str, Any]) -> None:
    streamed, mapped = prepare(data, name, **keys), prepare(data, name, **keys, streaming=False)
    assert items(streamed.train) == items(mapped.train)
    assert streamed.train.__getitems__([2, 0, 2]) == [mapped.train[2], mapped.train[0], mapped.train[2]]
    assert streamed.train.source(1) == mapped.train.source(1)
    if "val_size" in keys:
        assert items(streamed.eval) == items(mapped.eval)


def test_mixing_slices_samples_and_weights_are_those_without_streaming(data: Path) -> None:
    entries = {
        "a": {"file_name": "rows.jsonl", "num_samples": 40},
        "b": {
            "file_name": "few.csv",
            "split": "train[1:5]",
            "columns": {"prompt": "instruction", "response": "output"},
        },
        "c": {"file_name": "weighted.json"},
    }
    rows = [{"instruction": f"w{index}", "input": "", "output": "x", "weight": index % 3 / 2} for index in range(9)]
    (data / "weighted.json").write_text(json.dumps(rows))
    (data / "dataset_info.json").write_text(json.dumps(entries))
    keys = {"dataset": "a,b,c", "dataset_dir": str(data), "mix_strategy": "interleave_over", "val_size": 0.1}
    found = [
        pipeline.prepare(
            RunConfig.from_dict({"do_train": True, **keys, "streaming": on}), make_byte_tokenizer(), TEMPLATE
        )
        for on in (True, False)
    ]
    assert items(found[0].train) == items(found[1].train)
    assert items(found[0].eval) == items(found[1].eval)


def test_the_accounting_counts_a_row_once(data: Path) -> None:
    train = prepare(data).train
    for _ in range(3):
        items(train)
    (report,) = train.reports
    assert report.accounting().endswith("read 23, kept 23, rejected 0, truncated 0")


def test_same_weights_as_without_streaming_and_epochs_need_no_max_steps(data: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    streamed = make_trainer(tmp_path / "a", prepare(data).train, **keys)
    mapped = make_trainer(tmp_path / "b", prepare(data, streaming=False).train, **keys)
    streamed.train()
    mapped.train()
    assert streamed.state.global_step == 12
    for name, value in weights(mapped).items():
        assert torch.equal(value, weights(streamed)[name]), name


@pytest.mark.parametrize("buffer_size", [5, 16384])
def test_a_resumed_stream_ends_bit_for_bit_where_the_whole_one_does(
    data: Path, tmp_path: Path, buffer_size: int
) -> None:
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4}
    whole = make_trainer(tmp_path / "whole", prepare(data, buffer_size=buffer_size).train, **keys)
    whole.train()
    for stop in (2, 6, 13):
        folder = tmp_path / f"stopped-{stop}"
        first = make_trainer(folder, prepare(data, buffer_size=buffer_size).train, callbacks=[StopAt(stop)], **keys)
        first.train()
        rows = prepare(data, buffer_size=buffer_size).train
        second = make_trainer(folder, rows, **keys)
        second.train(resume_from_checkpoint=str(folder / f"checkpoint-{stop}"))
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(second)[name]), (stop, name)


def test_window_order_uses_each_row_once_and_stays_near() -> None:
    sampler = WindowSampler(1000, 50, seed=3)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again != list(sampler)
    assert sorted(first) == list(range(1000))
    assert all(index < place + 50 for place, index in enumerate(first))
    assert first != sorted(first)


def test_a_bad_row_stops_at_its_step_with_its_place(data: Path) -> None:
    train = prepare(data, "bad.jsonl").train
    with pytest.raises(DataError, match=r"bad.jsonl, row 22: broken JSON"):
        train.__getitems__([20, 21])


def test_bad_rows_that_are_let_go_are_items_without_rows(data: Path, tmp_path: Path) -> None:
    train = prepare(data, "bad.jsonl", skip_bad_rows=True).train
    assert train[21] == {"input_ids": [], "labels": [], "lengths": [], "rows": []}
    trainer = make_trainer(tmp_path / "a", train, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=1)
    trainer.train()
    assert trainer.state.global_step == 23
    assert train.reports[0].accounting().endswith("read 23, kept 22, rejected 1, truncated 0")


def test_a_wrong_layout_is_found_before_the_first_step(data: Path) -> None:
    (data / "rows.jsonl").write_text('{"instruction": "x", "output": null}\n' * 30)
    with pytest.raises(DataError, match="null where text is expected"):
        prepare(data)
    with pytest.raises(DataError, match="none of the first 20 rows can be used"):
        prepare(data, skip_bad_rows=True)


def test_a_stream_keeps_nothing(data: Path) -> None:
    items(prepare(data).train)
    assert not (cache.env.home() / "tokenized").exists()


def test_identity_follows_content_and_choice(data: Path) -> None:
    base = prepare(data).train.digest()
    assert prepare(data).train.digest() == base
    assert prepare(data, max_samples=22).train.digest() != base
    assert prepare(data, cutoff_len=99).train.digest() != base
    (data / "rows.jsonl").write_text((data / "rows.jsonl").read_text().replace("yes", "yet", 1))
    assert prepare(data).train.digest() != base


def test_a_dead_loader_process_names_its_rows(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = prepare(data).train
    main = os.getpid()
    original = stream.StreamRows.tokenize

    def die(self: Any, numbers: Any) -> Any:
        if os.getpid() != main and 7 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, numbers)

    monkeypatch.setattr(stream.StreamRows, "tokenize", die)
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4}
    trainer = make_trainer(tmp_path / "a", train, dataloader_num_workers=1, disable_shuffling=True, **keys)
    with pytest.raises(RuntimeError, match="DataLoader worker") as died:
        trainer.train()
    with pytest.raises(TrainingError, match="a process that prepares data died") as caught:
        raise_for_worker(died.value, train)
    rows = [f"{data / 'rows.jsonl'}, row {number}" for number in (5, 6, 7, 8)]
    assert all(row in str(caught.value) for row in rows)
    assert "row 9" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("packing: true\n", "packing needs the lengths of all rows"),
        ("tokenized_path: x\n", "exclude each other"),
        ("train_sampling_strategy: group_by_length\n", "needs lengths"),
    ],
)
def test_what_a_stream_cannot_do_is_a_configuration_error(tmp_path: Path, lines: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model_name_or_path: m\noutput_dir: o\ndo_train: true\ndataset: a\nstreaming: true\n" + lines)
    with pytest.raises(ConfigError, match=expected):
        load_config([str(path)], "train")


def test_other_errors_are_left_alone() -> None:
    raise_for_worker(RuntimeError("out of memory"), None)
    assert list(itertools.islice(WindowSampler(3, 9, 0), 3))


def test_rows_that_make_no_full_batch_are_not_left_out_in_silence() -> None:
    args = SimpleNamespace(dataloader_drop_last=True, train_batch_size=4, world_size=2)
    check_batches(args, range(8))
    with pytest.raises(TrainingError, match="7 rows make no full batch of 8; lower per_device_train_batch_size"):
        check_batches(args, range(7))
    args.dataloader_drop_last = False
    check_batches(args, range(7))
