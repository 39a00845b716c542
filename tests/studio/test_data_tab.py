"""The data tab: rows as the model sees them, a check of all, data sets out of text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Tab

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, ProblemsError, TunesmithError
from tunesmith.recipes.data import load_encoder
from tunesmith.recipes.preview import see
from tunesmith.studio.check_shown import check_page
from tunesmith.studio.choices import dataset_names, model_keys, model_names
from tunesmith.studio.data_look import Checking, Looker
from tunesmith.studio.guard import guard_keys
from tunesmith.studio.making_view import account_page, estimate, making_config
from tunesmith.studio.rows_shown import rows_page
from tunesmith.studio.words import table
from tunesmith.studio.workspace import Workspace

BAD = "<script>window.hacked = 1</script><img src=x onerror='window.hacked=1'>&amp;"
TEXT = "“Good evening,” said Anna.\n\n“Good evening, Anna,” said Bert. “You are late.”\n\n“I am,” said Anna.\n"
LOOK: dict[str, Any] = {"model_name_or_path": "models/tiny", "template": "chatml", "stage": "sft", "cutoff_len": 64}


def write_rows(folder: Path, name: str, rows: list[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")


def row(question: str, answer: Any = "a fox") -> dict[str, Any]:
    return {"instruction": question, "output": answer}


@pytest.fixture
def keys(tiny_workspace: Workspace) -> Callable[..., dict[str, Any]]:
    """Writes rows and gives the keys that look at them."""

    def make(rows: list[Any], **more: Any) -> dict[str, Any]:
        write_rows(tiny_workspace.root, "rows.jsonl", rows)
        return {**LOOK, "dataset": "rows.jsonl", **more}

    return make


def look(looker: Looker, keys: dict[str, Any], first: int, count: int, language: str) -> str:
    return looker.rows(looker.config(keys), first, count, language)


def test_every_token_is_shown_and_trained_ones_are_told_apart(tiny_workspace: Workspace, keys: Any) -> None:
    shown = look(Looker(tiny_workspace), keys([row("who are you")]), 1, 5, "en")
    assert "rows.jsonl, row 1" in shown
    assert 'class="on"' in shown
    config = RunConfig.from_dict(keys([row("who are you")]), command="data")
    encoder = load_encoder(config)
    part = see(config, encoder)[0].parts[0].tokens
    assert shown.count('<i class="on" title="') == part.n_trained
    assert shown.count(' title="') == len(part.input_ids)
    assert f"{len(part.input_ids)} tokens, {part.n_trained} trained" in shown


def test_text_in_the_data_never_becomes_markup(tiny_workspace: Workspace, keys: Any) -> None:
    shown = look(Looker(tiny_workspace), keys([row(BAD, BAD), row("x", {BAD: 1})], cutoff_len=2048), 1, 5, "en")
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&amp;" in shown
    report = {"ok": False, "stage": BAD, "problems": [{"what": BAD, "where": BAD, "fix": BAD}], "warnings": [BAD]}
    assert "<script" not in check_page(report)


def test_rows_are_paged_and_a_bad_one_says_why(tiny_workspace: Workspace, keys: Any) -> None:
    looker, found = Looker(tiny_workspace), keys([row("a"), "{broken", row("c", None), row("d")])
    assert "row 2" not in look(looker, found, 1, 1, "en")
    shown = look(looker, found, 2, 2, "en")
    assert shown.count("ts-note bad") == 2
    assert "column output" in shown
    assert "row 4" not in shown
    assert "The data set ends before" not in shown
    assert "ends before" in look(looker, found, 9, 2, "en")
    assert "数据集在此之前已结束" in look(looker, found, 9, 2, "zh")


def test_pairs_and_marks_are_named(tiny_workspace: Workspace, keys: Any) -> None:
    looker = Looker(tiny_workspace)
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert "优选回答" in look(looker, keys([pair], stage="dpo"), 1, 1, "zh")
    mark = {"prompt": "a", "completion": "b", "label": False}
    assert "marked bad" in look(looker, keys([mark], stage="kto"), 1, 1, "en")
    long = look(looker, keys([row("a " * 200)], cutoff_len=32), 1, 1, "en")
    assert "cut off by cutoff_len" in long


def test_a_tokenizer_is_kept_and_characters_of_several_tokens_are_whole(tiny_workspace: Workspace, keys: Any) -> None:
    looker = Looker(tiny_workspace)
    assert "家" in look(looker, keys([row("家")]), 1, 1, "en")
    look(looker, keys([row("b")]), 1, 1, "en")
    assert len(looker._encoders) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"dataset": "/etc/hostname.json"},
        {"dataset": "../rows.jsonl"},
        {"dataset_dir": "/etc"},
        {"dataset_dir": "../.."},
        {"model_name_or_path": "/usr"},
        {"model_name_or_path": "../other/model"},
        {"output_dir": "../out"},
        {"export_dir": "/tmp/x"},
        {"save_dir": "saves/../../x"},
        {"input_file_path": "/etc/passwd"},
        {"task": "/etc/task.yaml"},
        {"task_dir": "/etc"},
        {"metrics": "/tmp/evil.py:f"},
        {"adapter_name_or_path": ["saves/one", "/etc"]},
    ],
)
def test_no_path_leaves_the_workspace(tiny_workspace: Workspace, keys: Any, more: dict[str, Any]) -> None:
    with pytest.raises(TunesmithError, match="outside the workspace"):
        guard_keys(tiny_workspace, keys([row("a")], **more))


def test_no_value_is_read_out_of_the_environment(tiny_workspace: Workspace, keys: Any) -> None:
    for more in ({"dataset_name": "${oc.env:HF_TOKEN}"}, {"roles": "Anna,${ env:HOME }"}):
        with pytest.raises(TunesmithError, match="reads no environment variables"):
            guard_keys(tiny_workspace, keys([row("a")], **more))


def test_an_entry_that_points_outside_is_refused(tiny_workspace: Workspace, tmp_path: Path, keys: Any) -> None:
    write_rows(tmp_path, "secret.json", [json.dumps([row("secret")])])
    folder = tiny_workspace.root / "mine"
    folder.mkdir(exist_ok=True)
    info = {"leak": {"file_name": str(tmp_path / "secret.json")}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert dataset_names(tiny_workspace, "mine") == ["leak"]
    with pytest.raises(TunesmithError, match="outside the workspace"):
        look(Looker(tiny_workspace), keys([], dataset_dir="mine", dataset="leak"), 1, 1, "en")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(TunesmithError, match="outside the workspace"):
        look(Looker(tiny_workspace), keys([], dataset="mine/link.json"), 1, 1, "en")


def test_what_can_be_chosen(tiny_workspace: Workspace) -> None:
    assert "identity" in dataset_names(tiny_workspace, "data")
    assert {"smollm2-135m", "models/tiny"} <= set(model_names(tiny_workspace))
    assert model_keys(tiny_workspace, "models/tiny", None, "chatml")["template"] == "chatml"
    found = model_keys(tiny_workspace, "smollm2-135m", "saves/one/checkpoint-2", "auto")
    assert found["model_name_or_path"] == "models/tiny"
    assert found["adapter_name_or_path"] == ["saves/one/checkpoint-2"]
    with pytest.raises(TunesmithError, match="no model is chosen"):
        model_keys(tiny_workspace, " ", None, "auto")


def test_a_check_in_its_own_process(tiny_workspace: Workspace, keys: Any) -> None:
    rows = [row("who are you"), row("who are you"), row("x", None), row("the lazy dog", "jumps")]
    config = Looker(tiny_workspace).config(keys(rows))
    *seconds, found = Checking().run(config)
    assert seconds
    assert isinstance(found, dict)
    shown = check_page(found)
    assert "Training would refuse this data" in shown
    assert "ts-bars" in shown
    assert "Repeated rows" in shown
    assert "训练会拒绝这些数据" in check_page(found, "zh")


def test_a_check_that_cannot_be_made_says_why(tiny_workspace: Workspace, keys: Any) -> None:
    config = RunConfig.from_dict({**keys([]), "dataset": "gone.json"}, command="data")
    *_, found = Checking().run(config)
    assert "gone.json" in check_page(found)  # type: ignore[arg-type]


def test_a_cancelled_check_ends(tiny_workspace: Workspace, keys: Any) -> None:
    checking = Checking()
    running = checking.run(Looker(tiny_workspace).config(keys([row("a")])))
    assert isinstance(next(running), float)
    checking.cancel()
    assert not [one for one in running if isinstance(one, dict)]


def test_making_leaves_out_what_the_command_does_not_use(tiny_workspace: Workspace) -> None:
    (tiny_workspace.root / "novel.txt").write_text(TEXT)
    keys = {"input_file_path": "novel.txt", "output_dir": "made", "roles": "Anna", "generator": "none", "language": ""}
    config = making_config(tiny_workspace, "speech", {**keys, "entries_per_chunk": 5})
    assert (config.command, config.roles, config.unused) == ("data dialogue", ("Anna",), ())
    assert "it costs nothing" in estimate(config)
    assert not (tiny_workspace.root / "made").exists()
    with pytest.raises(ConfigError):
        making_config(tiny_workspace, "questions", {**keys, "input_file_path": ""})
    with pytest.raises(TunesmithError, match="outside the workspace"):
        making_config(tiny_workspace, "speech", {**keys, "output_dir": "/tmp/elsewhere"})


def test_the_account(tmp_path: Path) -> None:
    assert account_page(tmp_path) == ""
    facts = {"requested": 9, "kept": 7, "failed": 2, "failed_by_reason": {BAD: 2}, "cost": 0.5}
    (tmp_path / "making_results.json").write_text(json.dumps(facts))
    shown = account_page(tmp_path)
    assert "<b>9</b>" in shown
    assert "<script" not in shown
    assert "0.5000" in shown


def test_no_word_is_read_as_something_else() -> None:
    assert not {"True", "False", "None"} & {text for texts in table().values() for text in texts}, "quote on, off, no"


def test_a_data_set_that_cannot_be_used_is_an_error(tiny_workspace: Workspace, keys: Any) -> None:
    with pytest.raises(ProblemsError, match="unknown_name"):
        look(Looker(tiny_workspace), keys([], dataset="unknown_name"), 1, 1, "en")
    assert rows_page([], None) != ""


@pytest.mark.slow
def test_preview_check_and_make_in_the_browser(tab: Tab, studio_url: str, tiny_workspace: Workspace) -> None:
    write_rows(tiny_workspace.root, "page.jsonl", [row(BAD, "fox"), row("x", None), *[row(str(n)) for n in range(9)]])
    (tiny_workspace.root / "page_novel.txt").write_text(TEXT)
    tab.open(studio_url, "Data")
    tab.write("data-model", "models/tiny")
    tab.choose("data-template", "chatml")
    tab.write("data-dataset", "page.jsonl")
    tab.page.click("#data-show")
    tab.until(lambda: "row 5" in tab.text("data-shown"))
    assert "<script>window.hacked = 1</script>" in tab.text("data-shown")
    assert tab.page.evaluate("window.hacked === undefined")
    tab.page.click("#data-next")
    tab.until(lambda: "row 10" in tab.text("data-shown"))
    tab.write("data-dataset", "../outside.jsonl")
    tab.page.click("#data-show")
    tab.page.wait_for_selector("text=outside the workspace")
    tab.write("data-dataset", "page.jsonl")
    tab.page.click("#data-run_check")
    tab.until(lambda: "Training would refuse this data" in tab.text("data-shown"))
    tab.press("Make a data set")
    tab.page.click("#make-what label:has-text('One person')")
    tab.fill("make-input_file_path", "page_novel.txt")
    tab.fill("make-output_dir", "made_here")
    tab.fill("make-roles", "Anna")
    tab.choose("make-generator", "none")
    tab.page.click("#make-estimate")
    tab.until(lambda: "costs nothing" in tab.text("make-command"))
    tab.page.click("#make-start")
    tab.until(lambda: "Dialogue: finished" in tab.text("make-panel"))
    tab.until(lambda: "asked for" in tab.text("make-account"))
    assert (tiny_workspace.root / "made_here" / "dataset_info.json").is_file()


@pytest.mark.slow
def test_the_data_tab_on_a_phone_in_chinese(phone: Tab, studio_url: str) -> None:
    phone.open(studio_url, "Data")
    phone.page.click("#studio-language label:has-text('中文')")
    phone.page.wait_for_selector("text=查看数据")
    phone.write("data-model", "models/tiny")
    phone.page.click("#data-show")
    phone.until(lambda: "参与训练" in phone.text("data-shown"))
