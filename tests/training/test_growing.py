"""Training that begins before its rows are tokenized: the same items, order, weights, accounting and errors."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.conftest import make_byte_tokenizer
from tests.training.test_trainer import StopAt, make_trainer, weights

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data import cache, dataset, early, parts, pipeline
from tunesmith.data.growing import GrowingRows
from tunesmith.data.template import build_template
from tunesmith.recipes import train as recipe
from tunesmith.training.callbacks import RowsWatch
from tunesmith.training.checkpoints import list_checkpoints

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(early, "GROWING_BYTES", 0)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Tokenizing beside the training waits until it is set; it is in the end."""
    event, original = threading.Event(), dataset.Job.run

    def run(self: dataset.Job, *given: Any) -> Any:
        if self.is_silent:
            event.wait()
        return original(self, *given)

    monkeypatch.setattr(dataset.Job, "run", run)
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == "tokenizing":
            thread.join()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"instruction": f"question {index}", "output": "yes " * (index % 9 + 1)} for index in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "few.csv").write_text("instruction,output\n" + "".join(f"f{index},no\n" for index in range(13)))
    lines = [json.dumps(row) for row in rows]
    lines[40], lines[55] = "{broken", '{"instruction": "x", "output": null}'
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    return tmp_path


def prepare(data: Path, name: str = "rows.jsonl", **keys: Any) -> Any:
    names = ",".join(str(data / part) for part in name.split(","))
    given = {"do_train": True, "dataset": names, "output_dir": str(data / "out"), "preprocessing_batch_size": 7}
    return pipeline.prepare(RunConfig.from_dict(given | keys), make_byte_tokenizer(), TEMPLATE)


def waited(data: Path, monkeypatch: pytest.MonkeyPatch, name: str = "rows.jsonl", **keys: Any) -> Any:
    """The same without growing, in a cache of its own."""
    with monkeypatch.context() as patch:
        patch.setattr(early, "GROWING_BYTES", 1 << 40)
        patch.setenv("TUNESMITH_HOME", str(data / "other-home"))
        return prepare(data, name, **keys)


def items(rows: Any) -> list[Any]:
    return [rows[index] for index in range(len(rows))]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("rows.jsonl", {}),
    ("rows.jsonl", {"val_size": 7, "cutoff_len": 20}),
    ("rows.jsonl", {"max_samples": 33}),
    ("few.csv,rows.jsonl,few.csv", {"mix_strategy": "interleave_over", "val_size": 0.1}),
]


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_items_are_those_of_the_finished_rows(
    data: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch, name: str, keys: dict[str, Any]
) -> None:
    grown, whole = prepare(data, name, **keys), waited(data, monkeypatch, name, **keys)
    assert isinstance(grown.train, GrowingRows)
    wanted = items(whole.train)
    assert items(grown.train) == wanted
    assert grown.train.__getitems__([2, 0, 2]) == [wanted[2], wanted[0], wanted[2]]
    assert not grown.train.is_complete
    assert grown.train.longest >= whole.train.longest
    assert [grown.train.source(index) for index in (0, 5)] == [whole.train.source(index) for index in (0, 5)]
    if "val_size" in keys:
        assert items(grown.eval) == items(whole.eval)
    gate.set()
    assert grown.train.digest() == whole.train.digest()
    assert grown.train.is_complete
    assert items(grown.train) == wanted
    assert grown.train.longest == whole.train.longest


def said(make: Callable[[], Any]) -> list[str]:
    """The lines of a report, without what differs on purpose."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tunesmith")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        make()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return [line for line in lines if "training begins while" not in line and "waiting for the rows" not in line]


def test_the_report_is_the_same_and_comes_when_all_is_known(
    data: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"cutoff_len": 20, "eval_dataset": str(data / "few.csv")}
    whole = said(lambda: waited(data, monkeypatch, **keys))
    found: list[Any] = []
    begin = said(lambda: found.append(prepare(data, **keys).train))
    assert not any("trained tokens" in line for line in begin)
    gate.set()
    end = said(found[0].complete)
    example = next(line for line in whole if line.startswith("training example:"))
    assert example in begin
    assert [line for line in end if line not in begin] == [line for line in whole if line not in begin]
    assert any("rows cut to cutoff_len" in line for line in end)


def test_same_weights_as_with_finished_rows(data: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    rows = prepare(data).train
    released = threading.Timer(0.0, gate.set)

    class Release(StopAt):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 6:
                assert not rows.is_complete
                released.start()
                rows.complete()

    grown = make_trainer(data / "a", rows, callbacks=[Release(0), RowsWatch(rows)], **keys)
    whole = make_trainer(data / "b", waited(data, monkeypatch).train, **keys)
    grown.train()
    whole.train()
    assert grown.state.global_step == 30
    assert all(torch.equal(value, weights(grown)[name]) for name, value in weights(whole).items())


def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 8}
    whole = make_trainer(data / "whole", waited(data, monkeypatch).train, **keys)
    whole.train()
    folder = data / "stopped"
    first = make_trainer(folder, prepare(data).train, callbacks=[StopAt(3)], **keys)
    first.train()
    cache.shutil.rmtree(cache.env.home() / "tokenized")  # so that the rows grow again
    rows = prepare(data).train
    assert isinstance(rows, GrowingRows)
    second = make_trainer(folder, rows, **keys)
    second.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(whole).items())


def test_a_checkpoint_waits_for_all_rows(data: Path, gate: threading.Event) -> None:
    rows = prepare(data).train
    threading.Timer(0.5, gate.set).start()
    trainer = make_trainer(data / "a", rows, save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    assert rows.is_complete
    (checkpoint,) = list_checkpoints(data / "a")
    assert json.loads((checkpoint / "manifest.json").read_text())["data"] == rows.digest()


def test_loader_processes_take_what_is_there(
    data: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4}
    whole = make_trainer(data / "b", waited(data, monkeypatch).train, **keys)
    whole.train()
    for state in ("growing", "published"):
        rows = prepare(data).train
        if state == "published":
            gate.set()
            rows._filling.wait()
        trainer = make_trainer(data / state, rows, dataloader_num_workers=1, **keys)
        trainer.train()
        assert not rows.is_complete
        assert all(torch.equal(value, weights(trainer)[name]) for name, value in weights(whole).items())
        assert rows.in_flight()


def test_a_bad_row_ends_the_run_with_the_message_of_all(
    data: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError) as expected:
        waited(data, monkeypatch, "bad.jsonl")
    assert "row 41" in str(expected.value)
    assert "row 56, column output" in str(expected.value)
    rows = prepare(data, "bad.jsonl").train
    assert len(rows.__getitems__([39, 41])) == 2
    gate.set()
    for ask in (lambda: rows[40], rows.complete, rows.digest):
        with pytest.raises(DataError) as error:
            ask()
        assert str(error.value) == str(expected.value)
    rows._filling.wait()
    with pytest.raises(DataError, match="row 41"):
        RowsWatch(rows).on_step_end(None, None, None)


def test_a_bad_row_among_the_first_is_found_before_a_model_is_loaded(data: Path) -> None:
    (data / "bad.jsonl").write_text(
        '{"instruction": "x", "output": null}\n' + (data / "rows.jsonl").read_text() + "{\n"
    )
    with pytest.raises(DataError, match=r"(?s)row 1, column output.*row 62: broken JSON.*2 rows cannot be used"):
        prepare(data, "bad.jsonl")
    with pytest.raises(DataError, match="row 1, column output"):
        prepare(data, eval_dataset=str(data / "bad.jsonl"))


def test_nothing_is_kept_of_a_run_with_a_bad_row(
    data: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    out = data / "out"
    config = RunConfig.from_dict(
        {
            "model_name_or_path": tiny_model_dir,
            "template": "chatml",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": str(data / "bad.jsonl"),
            "output_dir": str(out),
            "max_steps": 6,
            "save_steps": 4,
            "cutoff_len": 128,
            "use_cpu": True,
            "disable_shuffling": True,
            "per_device_train_batch_size": 2,
        }
    )
    threading.Timer(1.0, gate.set).start()
    with pytest.raises(DataError, match=r"(?s)row 41.*row 56.*2 rows cannot be used"):
        recipe.run(config)
    kept = sorted(path.name for path in out.rglob("*") if path.is_file())
    assert not [name for name in kept if name.endswith((".safetensors", ".bin", ".pt")) or name == "manifest.json"], (
        kept
    )
    assert not list_checkpoints(out)
    assert '"failed"' in (out / "events.jsonl").read_text()


def test_a_dead_process_names_its_rows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, original = os.getpid(), parts.book_example

    def book(raw: Any, *rest: Any) -> Any:
        if os.getpid() != main and raw.source.row == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(raw, *rest)

    monkeypatch.setattr(parts, "book_example", book)
    rows = prepare(data).train
    with pytest.raises(DataError, match=r"rows.jsonl, row 29 to 35: a process that prepares data died \(signal 9\)"):
        rows.complete()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"packing": True, "cutoff_len": 80}, "packing needs the length of each"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy needs the length"),
        ({"skip_bad_rows": True}, "(skip_bad_rows)"),
        ({"allow_untrained_rows": True}, "(allow_untrained_rows)"),
        ({"tokenized_path": "kept"}, "tokenized_path keeps them"),
        ({"stage": "pt"}, "stage pt chooses its items by them"),
    ],
)
def test_what_needs_all_rows_waits_and_says_so(data: Path, keys: dict[str, Any], reason: str) -> None:
    if "tokenized_path" in keys:
        keys = {"tokenized_path": str(data / "kept")}
    found: list[Any] = []
    lines = said(lambda: found.append(prepare(data, **keys).train))
    assert any(reason in line for line in lines)
    assert not isinstance(found[0], GrowingRows)


def test_an_earlier_run_is_not_lost_to_a_bad_row(data: Path) -> None:
    (data / "out" / "checkpoint-3").mkdir(parents=True)
    assert not isinstance(prepare(data).train, GrowingRows)


def test_finished_rows_need_not_grow(data: Path) -> None:
    prepare(data).train.complete()
    assert not isinstance(prepare(data).train, GrowingRows)
