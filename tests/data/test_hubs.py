"""Data sets of hubs and clouds: where an entry points, what is fetched, and what a failure says."""

from __future__ import annotations

import json

import fsspec
import pytest

from tunesmith.core.errors import DataError, MissingPackageError
from tunesmith.data import hubs
from tunesmith.data.catalog import resolve
from tunesmith.data.examples import settle
from tunesmith.data.report import DatasetReport
from tunesmith.data.sources import read_dataset

ROWS = [{"instruction": f"q{index}", "output": f"a{index}"} for index in range(7)]


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A data set repository as a folder: a subfolder with two splits, and a dataset_info.json."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repo"
    (folder / "small").mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:3])):
        (folder / "small" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.json").write_text(json.dumps(ROWS[:2]))
    (folder / "dataset_info.json").write_text(
        json.dumps({"one": {"file_name": "rows.json"}, "gone": {"file_name": "no.json"}})
    )
    return folder


def entry(tmp_path, **keys):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": keys}))
    (spec,) = resolve(("x",), str(tmp_path))
    return spec


def read(spec):
    return [(row.source.row, row.value["instruction"]) for row in read_dataset(spec)]


def test_a_folder_is_loaded_as_a_repository_of_the_hub(tmp_path, repo):
    spec = hubs.fetch(
        entry(tmp_path, hf_hub_url=str(repo), folder="small", split="test"), cache_dir=str(tmp_path / "cache")
    )
    assert read(spec) == [(1, "q0"), (2, "q1"), (3, "q2")]
    assert next(read_dataset(spec)).source.file == f"{repo}, split test"


def test_slices_of_a_hub_split_keep_row_numbers(tmp_path, repo):
    from tunesmith.data.examples import select_rows

    spec = hubs.fetch(
        entry(tmp_path, hf_hub_url=str(repo), folder="small", split="test[1:]"), cache_dir=str(tmp_path / "cache")
    )
    assert [row.source.row for row in select_rows(spec, None, 0, DatasetReport("x"))] == [2, 3]


def test_parts_of_one_split_are_numbered_as_one(tmp_path, repo):
    files = ((repo / "small" / "test.jsonl", "a/b, split train"), (repo / "small" / "train.jsonl", "a/b, split train"))
    from dataclasses import replace

    spec = replace(entry(tmp_path, hf_hub_url="a/b"), files=files)
    assert [row.source.row for row in read_dataset(spec)] == list(range(1, 11))


@pytest.mark.parametrize(
    ("split", "expected"), [("dev", "dev"), ("train+test", "one split"), ("tr ain[", "understood")]
)
def test_wrong_splits_are_named(tmp_path, repo, split, expected):
    with pytest.raises(DataError, match=expected) as caught:
        hubs.fetch(
            entry(tmp_path, hf_hub_url=str(repo), folder="small", split=split), cache_dir=str(tmp_path / "cache")
        )
    assert "dataset x" in str(caught.value)


def test_offline_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(hubs, "probe", lambda *_: (_ for _ in ()).throw(OSError("cannot be reached")))
    with pytest.raises(DataError) as caught:
        hubs.fetch(entry(tmp_path, hf_hub_url="no-one/nothing", subset="en", split="test"))
    message = str(caught.value)
    assert "cannot be reached" in message
    assert "tried: Hugging Face no-one/nothing, subset en, folder -, split test" in message


def test_an_unreachable_hub_is_given_up_in_time(monkeypatch):
    import time

    from huggingface_hub import constants

    monkeypatch.setattr(hubs, "CONNECT_SECONDS", 1.2)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(OSError, match="cannot be reached"):
        hubs.probe("datasets/a/b", None)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("key", "package"), [("ms_hub_url", "modelscope"), ("om_hub_url", "openmind")])
def test_hubs_whose_package_is_missing_say_how_to_install_it(tmp_path, monkeypatch, key, package):
    from tunesmith.core import optional

    monkeypatch.setattr(optional, "is_installed", lambda name: False)
    with pytest.raises(MissingPackageError, match=rf"{key} needs the package '{package}'.*tunesmith\[{package}\]"):
        hubs.fetch(entry(tmp_path, **{key: "a/b"}))


def test_the_wanted_hub_is_taken_where_an_entry_names_several(tmp_path, monkeypatch):
    urls = {"hf_hub_url": "h/h", "ms_hub_url": "m/m", "om_hub_url": "o/o"}
    assert entry(tmp_path, **urls).remote.url == "h/h"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert entry(tmp_path, **urls).remote.url == "m/m"
    assert entry(tmp_path, hf_hub_url="h/h").remote.kind == "hf"


def test_online_names_are_repositories(repo, tmp_path):
    (spec,) = resolve((str(repo / "small"),), "ONLINE")
    spec = settle(hubs.fetch(spec, cache_dir=str(tmp_path / "cache")))
    assert spec.formatting == "alpaca"
    assert len(read(spec)) == 7


def test_remote_folder_gives_entries_and_files(repo):
    (spec,) = resolve(("one",), f"REMOTE:{repo}")
    assert read(hubs.fetch(spec)) == [(1, "q0"), (2, "q1")]


def test_files_of_a_remote_repository_are_fetched(repo, tmp_path, monkeypatch):
    monkeypatch.setattr(hubs, "fetch_file", lambda name, file, token: tmp_path / "got" / file)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "dataset_info.json").write_text(json.dumps({"far": {"file_name": "data/far.json"}}))
    (spec,) = resolve(("far",), "REMOTE:some/repo", "secret")
    assert (spec.remote.kind, spec.remote.url, spec.remote.folder) == ("hf_file", "some/repo", "data/far.json")
    (tmp_path / "got" / "data").mkdir()
    (tmp_path / "got" / "data" / "far.json").write_text(json.dumps(ROWS))
    spec = hubs.fetch(spec)
    assert len(read(spec)) == 7
    assert next(read_dataset(spec)).source.file == "some/repo/data/far.json"


def test_a_remote_folder_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr(hubs, "probe", lambda *_: (_ for _ in ()).throw(OSError("no way")))
    with pytest.raises(DataError, match=r"dataset_info.json of no-one/x cannot be had: no way"):
        resolve(("a",), "REMOTE:no-one/x")


@pytest.fixture
def cloud():
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS[:2]).encode())
    system.pipe("/bucket/b.jsonl", json.dumps(ROWS[2]).encode())
    system.pipe("/bucket/.hidden", b"x")
    yield system
    system.rm("/bucket", recursive=True)


def test_cloud_file_and_folder(tmp_path, cloud):
    spec = hubs.fetch(entry(tmp_path, cloud_file_name="memory://bucket/b.jsonl"))
    assert read(spec) == [(1, "q2")]
    assert next(read_dataset(spec)).source.file == "memory://bucket/b.jsonl"
    spec = hubs.fetch(entry(tmp_path, cloud_file_name="memory://bucket"))
    assert read(spec) == [(1, "q0"), (2, "q1"), (1, "q2")]
    assert [name for _, name in spec.files] == ["memory://bucket/a.jsonl", "memory://bucket/b.jsonl"]


def test_cloud_content_is_copied_once_and_again_when_it_changes(tmp_path, cloud, monkeypatch):
    copies = []
    original = type(cloud).get_file
    monkeypatch.setattr(type(cloud), "get_file", lambda *args, **keys: copies.append(1) or original(*args, **keys))
    place = {"cloud_file_name": "memory://bucket/b.jsonl"}
    hubs.fetch(entry(tmp_path, **place))
    hubs.fetch(entry(tmp_path, **place))
    assert len(copies) == 1
    cloud.pipe("/bucket/b.jsonl", json.dumps(ROWS[3]).encode() + b"\n")
    assert read(hubs.fetch(entry(tmp_path, **place))) == [(1, "q3")]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("memory://none/x.json", "cannot be read"),
        ("file:///no/such/file.json", "cannot be read"),
        ("nope://x/y.json", "cannot be read"),
    ],
)
def test_cloud_failures_name_address_and_way(tmp_path, address, expected):
    with pytest.raises(DataError, match=expected) as caught:
        hubs.fetch(entry(tmp_path, cloud_file_name=address))
    assert address in str(caught.value)
    assert "tried with the account of this machine" in str(caught.value)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("gcs", "gcs")])
def test_clouds_name_their_package(tmp_path, monkeypatch, scheme, extra):
    from tunesmith.core import optional

    monkeypatch.setattr(optional, "is_installed", lambda name: False)
    with pytest.raises(MissingPackageError, match=rf"tunesmith\[{extra}\]"):
        hubs.fetch(entry(tmp_path, cloud_file_name=f"{scheme}://bucket/a.json"))
