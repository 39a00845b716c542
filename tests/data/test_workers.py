"""Several processes give the rows and the accounting of one; what happens when one of them dies."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import make_byte_tokenizer

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data import cache, dataset, parts, pipeline, workers
from tunesmith.data.template import build_template
from tunesmith.data.workers import Workers

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = []
    for index in range(500):
        row: dict[str, Any] = {"instruction": f"question {index} {{{{name}}}}", "output": "yes " * (index % 9 + 1)}
        row |= {"output": ""} if index % 90 == 7 else {}
        row |= {"output": None} if index % 70 == 3 else {}
        row |= {"weight": index % 4 / 2}
        lines.append("{broken" if index % 110 == 100 else json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    columns = {"prompt": "instruction", "response": "output", "weight": "weight"}
    info = {
        "plain": {"file_name": "rows.jsonl"},
        "weighted": {"file_name": "rows.jsonl", "columns": columns},
        "drawn": {"file_name": "rows.jsonl", "num_samples": 700},
        "part": {"file_name": "rows.jsonl", "split": "train[100:300]+train[-20:]"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path


def config_of(data: Path, name: str = "plain", **keys: Any) -> RunConfig:
    given = {"do_train": True, "dataset": name, "dataset_dir": str(data), "skip_bad_rows": True, "cutoff_len": 30}
    return RunConfig.from_dict(given | {"preprocessing_batch_size": 37} | keys)


def jobs(config: RunConfig) -> list[dataset.Job]:
    encoder = pipeline.make_encoder(config, make_byte_tokenizer(), TEMPLATE)
    return dataset.jobs_of(pipeline.find_specs(config, config.dataset), encoder, config)


@pytest.fixture
def _always_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PARALLEL_BYTES", 0)


def rows_and_reports(config: RunConfig) -> list[tuple[list[Any], dict[str, Any]]]:
    return [(list(rows), asdict(report)) for rows, report in dataset.run_jobs(jobs(config))]


@pytest.mark.usefixtures("_always_parallel")
@pytest.mark.parametrize("keys", [{}, {"max_samples": 123}, {"name": "weighted"}, {"name": "drawn"}, {"name": "part"}])
def test_three_processes_make_what_one_makes(data: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = rows_and_reports(config_of(data, preprocessing_num_workers=1, overwrite_cache=True, **keys))
    monkeypatch.setattr(dataset, "book_rows", None)  # what this process would call
    three = rows_and_reports(config_of(data, preprocessing_num_workers=3, overwrite_cache=True, **keys))
    ((rows, report),), ((more_rows, more_report),) = one, three
    assert rows == more_rows
    for found in (report, more_report):
        found["rejects"].sort(key=lambda entry: entry["source"]["row"])  # batches end elsewhere
    assert report == more_report
    assert report["rejected"] > 3


@pytest.mark.usefixtures("_always_parallel")
def test_the_message_about_bad_rows_is_the_same(data: Path) -> None:
    said = []
    for count in (1, 3):
        config = config_of(data, skip_bad_rows=False, preprocessing_num_workers=count)
        with pytest.raises(DataError) as error:
            pipeline.prepare(config, make_byte_tokenizer(), TEMPLATE)
        said.append(str(error.value))
        cache.shutil.rmtree(cache.env.home() / "tokenized")
    assert said[0] == said[1]
    assert "row 4, column output: null where text is expected" in said[0]


@pytest.mark.usefixtures("_always_parallel")
def test_a_stopped_run_goes_on_behind_its_shards(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(data, preprocessing_num_workers=2)
    whole = rows_and_reports(config_of(data, preprocessing_num_workers=1, overwrite_cache=True))
    cache.shutil.rmtree(cache.env.home() / "tokenized")
    monkeypatch.setattr(dataset, "SHARD_ROWS", 50)
    kept = cache.keep_shard

    def stop(writer: Any, report: Any) -> None:
        kept(writer, report)
        if report.read > 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(cache, "keep_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        dataset.run_jobs(jobs(config))
    monkeypatch.setattr(cache, "keep_shard", kept)
    asked: list[int] = []
    original = Workers.shards
    monkeypatch.setattr(
        Workers, "shards", lambda self, name, first, size: asked.append(first) or original(self, name, first, size)
    )
    ((rows, report),) = rows_and_reports(config)
    assert asked[0] > 200
    assert rows == whole[0][0]
    assert report["read"] == whole[0][1]["read"] == 377


def die_at(row: int, how: Any) -> Any:
    original = parts.book_example

    def book(raw: Any, *rest: Any) -> Any:
        if raw.source.row == row:
            how()
        return original(raw, *rest)

    return book


@pytest.mark.usefixtures("_always_parallel")
def test_a_dead_process_names_its_rows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "book_example", die_at(80, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    expected = rf"{data}/rows.jsonl, row 51 to 99: a process that prepares data died \(signal 9\) at these rows"
    with pytest.raises(DataError, match=expected):
        dataset.run_jobs(jobs(config_of(data, preprocessing_num_workers=2)))
    with pytest.raises(DataError, match=r"row 80 to 80: a process"):
        dataset.run_jobs(jobs(config_of(data, preprocessing_num_workers=2, preprocessing_batch_size=1)))


@pytest.mark.usefixtures("_always_parallel")
def test_a_fault_of_ours_keeps_its_trace(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "book_example", die_at(80, lambda: 1 / 0))
    with pytest.raises(RuntimeError, match=r"(?s)in a process that prepares data.*ZeroDivisionError"):
        dataset.run_jobs(jobs(config_of(data, preprocessing_num_workers=2)))


def test_small_files_need_no_processes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "Workers", None)
    assert len(rows_and_reports(config_of(data, preprocessing_num_workers=4))) == 1


def test_processes_end_with_their_work_and_with_their_parent(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(config_of(data))
    part = parts.open_part(job.spec, job.config, job.encoder)
    with closing(Workers({"x": part}, 2)) as crew:
        processes = [worker.process for worker in crew._workers]
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)
    monkeypatch.setattr(workers, "_PATIENCE", 0.05)
    monkeypatch.setattr(workers.os, "getppid", lambda: 1)  # as if another process had taken them over
    orphans = Workers({"x": part}, 1)
    orphans._workers[0].process.join(10)
    assert orphans._workers[0].process.exitcode == 0
    orphans.close()
