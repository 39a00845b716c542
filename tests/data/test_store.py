"""Rows on disk: what a kill costs, memory maps, several processes at once."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow
from tunesmith.data import cache, dataset, pipeline, store
from tunesmith.data.flat import pack_arrays
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import TrainRows
from tunesmith.data.store import StoreWriter, open_rows, write_rows
from tunesmith.data.template import build_template

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})


def rows(count, first=0):
    made = []
    for index in range(first, first + count):
        ids = list(range(index, index + 3 + index % 5))
        labels = [IGNORE_INDEX, *ids[1:-1], 7 if index % 3 == 0 else ids[-1]]
        made.append(TokenizedRow(ids, labels, Source(f"f{index % 2}", index + 1), index % 4, 0, weight=1 + index % 2))
    return made


@pytest.fixture(params=["in memory", "mapped"])
def _mapping(request, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0 if request.param == "mapped" else 1 << 24)


@pytest.mark.usefixtures("_mapping")
def test_shards_are_read_back_as_they_were_written(tmp_path):
    writer = StoreWriter(tmp_path / "s")
    writer.add(pack_arrays(rows(10)))
    writer.add(pack_arrays([]))
    writer.commit({"n": 1})
    writer.add(pack_arrays(rows(5, 10)))
    writer.commit({"n": 2})
    writer.close()
    found, facts = open_rows(tmp_path / "s")
    assert list(found) == rows(15)
    assert facts == {"n": 2}
    assert found.digest() == pack_arrays(rows(15)).digest()
    assert found.ids.tolist() == pack_arrays(rows(15)).ids.tolist()
    assert list(pickle.loads(pickle.dumps(found))) == rows(15)


def test_what_was_not_committed_is_dropped(tmp_path):
    writer = StoreWriter(tmp_path / "s")
    writer.add(pack_arrays(rows(10)))
    writer.commit({"n": 1})
    writer.add(pack_arrays(rows(99, 10)))
    writer.close()
    again = StoreWriter(tmp_path / "s")
    assert again.facts == {"n": 1}
    again.add(pack_arrays(rows(2, 10)))
    again.commit({"n": 2})
    again.close()
    assert list(open_rows(tmp_path / "s")[0]) == rows(12)


@pytest.mark.usefixtures("_mapping")
def test_no_rows_at_all(tmp_path):
    write_rows(tmp_path / "s", pack_arrays([]), {"a": 1})
    found, facts = open_rows(tmp_path / "s")
    assert (len(found), facts) == (0, {"a": 1})


def test_pages_of_mapped_files_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    write_rows(tmp_path / "s", pack_arrays(rows(50)), {})
    found, _ = open_rows(tmp_path / "s")
    calls = []
    monkeypatch.setattr(type(found.stores[0]), "release", lambda self: calls.append(self))
    monkeypatch.setattr("tunesmith.data.rows._RELEASE_EVERY", 20)
    assert list(found) == rows(50)
    assert calls


def test_choosing_and_joining_copies_no_token():
    part = pack_arrays(rows(20))
    chosen = part.take([3, 3, 1])
    assert chosen.stores is part.stores
    assert chosen.digest() == pack_arrays([rows(20)[i] for i in (3, 3, 1)]).digest() != part.digest()
    assert TrainRows(part)[1]["weights"] == [2.0]
    assert "weights" not in TrainRows(part)[0]


WORKER = """
    import os, signal, sys, json
    sys.path.insert(0, {tests!r})
    from tests.data.conftest import make_byte_tokenizer
    from tests.data.test_store import TEMPLATE
    from tunesmith.config.schema import RunConfig
    from tunesmith.data import dataset, pipeline, cache
    dataset.SHARD_ROWS = 64
    kept = cache.keep_shard
    count = 0
    def keep(writer, report):
        global count
        kept(writer, report)
        count += 1
        if count == {stop_at}:
            print(report.read, flush=True)
            original = dataset.book_rows
            def die(batch, *rest):
                original(batch, *rest)
                os.kill(os.getpid(), signal.SIGKILL)
            dataset.book_rows = die
    cache.keep_shard = keep
    config = RunConfig.from_dict(json.loads({config!r}))
    pipeline.prepare(config, make_byte_tokenizer(), TEMPLATE)
"""


def test_a_kill_costs_at_most_one_shard(tmp_path, byte_tokenizer, monkeypatch):
    data = tmp_path / "many.jsonl"
    lines = [json.dumps({"instruction": f"q {index}", "output": f"answer {index}"}) for index in range(1000)]
    lines[500] = "{broken"
    data.write_text("\n".join(lines))
    keys = {"do_train": True, "dataset": str(data), "preprocessing_batch_size": 32, "skip_bad_rows": True}
    script = textwrap.dedent(WORKER).format(stop_at=8, tests=str(_root()), config=json.dumps(keys))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    read_before = int(done.stdout)

    tokenized = []
    original = dataset.book_rows
    monkeypatch.setattr(dataset, "book_rows", lambda batch, *rest: tokenized.extend(batch) or original(batch, *rest))
    config = RunConfig.from_dict(keys)
    prepared = pipeline.prepare(config, byte_tokenizer, TEMPLATE)
    assert read_before >= 8 * 64
    assert 1000 - read_before - 1 <= len(tokenized) <= 1000 - read_before + 64
    report = prepared.report.datasets[0]
    assert report.accounting().endswith("read 1000, kept 999, rejected 1, truncated 0")
    fresh = pipeline.prepare(config.replace(overwrite_cache=True), byte_tokenizer, TEMPLATE)
    assert prepared.train.digest() == fresh.train.digest()
    assert prepared.report.datasets == fresh.report.datasets
    assert [path.suffix for path in (cache.env.home() / "tokenized").iterdir()] == [""]


def _root():
    from pathlib import Path

    return Path(__file__).parents[2]


def test_a_broken_unfinished_cache_is_begun_again(tmp_path):
    folder = cache.cache_folder("k").with_suffix(".part")
    write_rows(folder, pack_arrays(rows(3)), {"no": "report"})
    writer, known = cache.begin("k", afresh=False)
    assert known is None
    assert writer.facts == {}
    writer.close()


def test_a_second_process_waits_and_takes_what_the_first_made(tmp_path, byte_tokenizer, monkeypatch):
    import threading

    data = tmp_path / "some.jsonl"
    data.write_text("\n".join(json.dumps({"instruction": f"q{i}", "output": "a"}) for i in range(50)))
    config = RunConfig.from_dict({"do_train": True, "dataset": str(data)})
    made = []
    original = dataset.Job._make_on_disk
    monkeypatch.setattr(dataset.Job, "_make_on_disk", lambda *given: made.append(1) or original(*given))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(pipeline.prepare(config, byte_tokenizer, TEMPLATE)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({found.train.digest() for found in results}) == 1


def test_reports_survive_their_json():
    report = DatasetReport("x", read=3, placeholders={"a": 1})
    assert cache.report_from(json.loads(json.dumps(cache.asdict(report)))) == report
    assert np.array_equal(pack_arrays(rows(4)).lost[:, 0], [0, 1, 2, 3])
