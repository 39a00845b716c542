"""dataset_info.json: entries, fall-backs, and what is said when something is wrong."""

from __future__ import annotations

import json

import pytest

from tunesmith.core.errors import DataError
from tunesmith.data import catalog
from tunesmith.data.catalog import Columns, resolve

ROW = [{"instruction": "a", "output": "b"}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROW), encoding="utf-8")
    (tmp_path / "数据.json").write_text(json.dumps(ROW), encoding="utf-8")
    return tmp_path


def write_info(folder, info, encoding="utf-8"):
    text = info if isinstance(info, str) else json.dumps(info, ensure_ascii=False)
    (folder / "dataset_info.json").write_text(text, encoding=encoding)
    return str(folder)


def test_entry_without_columns_has_the_defaults(folder):
    (spec,) = resolve(("a",), write_info(folder, {"a": {"file_name": "a.json"}}))
    assert (spec.formatting, spec.ranking, spec.split) == ("alpaca", False, "train")
    assert spec.columns == Columns(prompt="instruction", query="input", response="output", messages="conversations")
    assert spec.path == folder / "a.json"


def test_columns_not_listed_are_null_and_tags_fall_back_by_key(folder):
    info = {"a": {"file_name": "a.json", "columns": {"prompt": "text"}, "tags": {"role_tag": "role"}}}
    (spec,) = resolve(("a",), write_info(folder, info))
    assert spec.columns == Columns(prompt="text")
    assert (spec.tags.role_tag, spec.tags.content_tag, spec.tags.system_tag) == ("role", "value", "system")


def test_utf8_with_bom_and_chinese_names(folder):
    (spec,) = resolve(("中文",), write_info(folder, {"中文": {"file_name": "数据.json"}}, "utf-8-sig"))
    assert spec.path.name == "数据.json"


def test_name_given_twice_is_used_twice_and_said(folder, caplog):
    info = write_info(folder, {"a": {"file_name": "a.json"}})
    with caplog.at_level("INFO", logger="tunesmith"):
        assert len(resolve(("a", "a"), info)) == 2
    assert "used 2 times" in caplog.text


def test_file_name_wins_over_a_hub_entry(folder):
    info = {"a": {"hf_hub_url": "x/y", "file_name": "a.json"}}
    assert resolve(("a",), write_info(folder, info))[0].path.name == "a.json"


def test_broken_list_of_the_tutorial_names_the_line_and_the_right_shape(folder):
    text = '[\n  "huangdi": {\n    "file_name": "huangdi.json"\n  },\n]\n'
    with pytest.raises(DataError) as caught:
        resolve(("huangdi",), write_info(folder, text))
    message = str(caught.value)
    assert "dataset_info.json:2" in message
    assert '{"my_data": {"file_name": "my_data.json"}}' in message


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"script_url": "x"}, "script_url"),
        ({}, "names no file"),
        ({"file_name": "none.json"}, "no such file or folder"),
        ({"file_name": "a.json", "formating": "alpaca"}, "did you mean formatting"),
        ({"file_name": "a.json", "formatting": "sharegtp"}, "one of: alpaca, sharegpt, openai"),
        ({"file_name": "a.json", "columns": {"promt": "x"}}, "did you mean prompt"),
        ({"file_name": "a.json", "columns": {"prompt": 1}}, "must be text"),
        ({"file_name": "a.json", "tags": []}, "tags must be an object"),
        ({"file_name": "a.json", "num_samples": -1}, "num_samples"),
        ([], "an entry must be an object"),
    ],
)
def test_unusable_entries(folder, entry, expected):
    with pytest.raises(DataError) as caught:
        resolve(("bad",), write_info(folder, {"bad": entry}))
    assert expected in str(caught.value)
    assert "'bad'" in str(caught.value)


def test_all_unknown_names_come_at_once_with_the_nearest(folder):
    info = write_info(folder, {"alpaca_en": {"file_name": "a.json"}, "identity": {"file_name": "a.json"}})
    with pytest.raises(DataError) as caught:
        resolve(("alpaca_eng", "idendity"), info)
    assert "did you mean alpaca_en?" in str(caught.value)
    assert "did you mean identity?" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_top_level_list_is_refused(folder):
    with pytest.raises(DataError, match="must be an object of named entries"):
        resolve(("a",), write_info(folder, "[]"))


def test_packaged_copy_stands_in_for_the_default_folder(tmp_path, monkeypatch, caplog):
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    (bundled / "a.json").write_text(json.dumps(ROW))
    write_info(bundled, {"a": {"file_name": "a.json"}})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(catalog, "bundled_dir", lambda: bundled)
    with caplog.at_level("INFO", logger="tunesmith"):
        assert resolve(("a",), "data")[0].path == bundled / "a.json"
    assert str(bundled) in caplog.text
    with pytest.raises(DataError, match=r"no dataset_info\.json"):
        resolve(("a",), "other")


def test_bundled_dir_is_beside_the_package():
    found = catalog.bundled_dir()
    assert found is None or (found / "dataset_info.json").is_file()


def test_path_straight_to_a_file_needs_no_dataset_info(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (spec,) = resolve(("a.json",), "nowhere")
    assert spec.formatting == "auto"
    with pytest.raises(DataError, match=r"no such file: b\.json"):
        resolve(("b.json",), "nowhere")
    with pytest.raises(DataError, match=r"no such file: aa\.json\s+did you mean a\.json\?"):
        resolve(("aa.json",), "nowhere")


@pytest.mark.parametrize("name", ["rows.xlsx", "rows"])
def test_a_file_of_another_kind_is_no_unknown_name(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    (folder / name).write_text("[]")
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=f"{name} has no ending that says how to read it\\s+known: arrow, csv, json,"):
        resolve((name,), str(folder))
