"""The evaluate tab: what is started, how it stands, results and comparisons."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Tab

from tunesmith.config.load import load_config
from tunesmith.core.errors import ConfigError, TunesmithError
from tunesmith.core.runs import LOG_FILE, Run, write_json
from tunesmith.studio.choices import model_keys
from tunesmith.studio.command_shown import command_line, command_page, set_keys
from tunesmith.studio.evaluating import compare_page, evaluation_config, folder_name
from tunesmith.studio.job_shown import clock, job_page
from tunesmith.studio.results_shown import PAGE, numbers_page, read_results, samples_page
from tunesmith.studio.workspace import Workspace

BAD = "<script>window.hacked = 1</script>"
FIELDS: dict[str, Any] = {
    "dataset_dir": "data",
    "eval_dataset": ["identity"],
    "output_dir": "saves/answers",
    "max_samples": 4,
    "temperature": 0.95,
    "metrics": ["rouge", "exact_match"],
    "task": "mmlu_test",
    "save_dir": "saves/asked",
    "n_shot": 1,
}


def write_predictions(folder: Path, count: int, shift: float = 0.0) -> Path:
    rows = [
        {"prompt": f"{BAD} {n}", "predict": f"answer {n}", "label": BAD, "scores": {"rouge-l": n + shift}}
        for n in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generated_predictions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    write_json(folder / "predict_results.json", {"predict_rouge-l": 1.5 + shift})
    return folder


def test_a_prediction_of_a_run(tiny_workspace: Workspace) -> None:
    model = model_keys(tiny_workspace, None, "saves/one", None)
    config = evaluation_config(tiny_workspace, "data", model, FIELDS)
    assert (config.command, config.do_predict, config.do_train, config.predict_with_generate) == (
        "train",
        True,
        False,
        True,
    )
    assert (config.model_name_or_path, config.adapter_name_or_path) == ("models/tiny", ("saves/one",))
    assert (config.eval_dataset, config.metrics) == (("identity",), ("rouge", "exact_match"))
    assert config.task is None
    with pytest.raises(TunesmithError, match="choose the data set"):
        evaluation_config(tiny_workspace, "data", model, {**FIELDS, "eval_dataset": []})


def test_the_command_does_the_same(tiny_workspace: Workspace) -> None:
    model = model_keys(tiny_workspace, None, "saves/one", None)
    config = evaluation_config(tiny_workspace, "data", model, {**FIELDS, "output_dir": "saves/it's; rm -rf $HOME"})
    words = shlex.split(command_line(config).replace("\\\n", " "))
    assert words[:2] == ["tunesmith", "train"]
    assert set_keys(load_config(words[2:], "train")) == set_keys(config)
    shown = command_page(config, "zh")
    assert "命令行" in shown
    assert "do_predict: true" in shown


def test_a_benchmark(tiny_workspace: Workspace) -> None:
    model = model_keys(tiny_workspace, "models/tiny", None, "fewshot")
    config = evaluation_config(tiny_workspace, "task", model, FIELDS)
    assert (config.command, config.task, config.save_dir, config.n_shot) == ("eval", "mmlu_test", "saves/asked", 1)
    assert not config.unused
    with pytest.raises(ConfigError, match="mmlu_test"):
        evaluation_config(tiny_workspace, "task", model, {**FIELDS, "task": "mmul_test"})
    with pytest.raises(TunesmithError, match="outside"):
        evaluation_config(tiny_workspace, "task", model, {**FIELDS, "save_dir": "/tmp/x"})


def test_a_fresh_folder_where_none_is_named(tiny_workspace: Workspace) -> None:
    assert folder_name("eval").startswith("saves/eval/2")
    model, fields = (
        model_keys(tiny_workspace, "models/tiny", None, "fewshot"),
        {**FIELDS, "output_dir": "", "save_dir": ""},
    )
    assert str(evaluation_config(tiny_workspace, "data", model, fields).output_dir).startswith("saves/predict/2")
    assert str(evaluation_config(tiny_workspace, "task", model, fields).save_dir).startswith("saves/eval/2")


def test_results_a_page_at_a_time(tmp_path: Path) -> None:
    found = read_results(write_predictions(tmp_path / "run", 2 * PAGE + 1))
    assert found.n_pages == 3
    assert "predict_rouge-l" in numbers_page(found)
    first, last = samples_page(found, 1), samples_page(found, 99, "zh")
    assert first.count("<tr>") == PAGE + 1
    assert last.count("<tr>") == 2
    assert "模型回答" in last
    assert "<script" not in first
    with pytest.raises(TunesmithError, match="holds no results"):
        read_results(tmp_path)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "run", 1)
    line = {"prompt": "x" * 5000, "predict": "a", "label": "b", "scores": {}}
    (folder / "generated_predictions.jsonl").write_text(json.dumps(line) + "\n")
    assert "(+3,800)" in samples_page(read_results(folder), 1)


def test_two_runs_in_a_frame_without_scripts(tiny_workspace: Workspace) -> None:
    for name, shift in (("left", 0.0), ("right", 2.0)):
        write_predictions(tiny_workspace.root / "saves" / name, 12, shift)
    shown = compare_page(tiny_workspace, ["saves/left", "saves/right"])
    assert 'sandbox=""' in shown
    assert "<script" not in shown
    assert "better" in shown
    with pytest.raises(TunesmithError, match="two different folders"):
        compare_page(tiny_workspace, ["saves/left"])
    with pytest.raises(TunesmithError, match="outside"):
        compare_page(tiny_workspace, ["saves/left", "/etc"])


def test_how_work_stands(tmp_path: Path) -> None:
    assert "Nothing was started" in job_page(tmp_path)
    run = Run(tmp_path)
    run.emit("queued", command="predict")
    assert "预测: 排队中" in job_page(tmp_path, "zh")
    run.begin("predict")
    run.progress(1, 4, "predicting: rouge-l 30")
    (tmp_path / LOG_FILE).write_text(f"reading\n{BAD}\n")
    shown = job_page(tmp_path)
    assert "Prediction: running" in shown
    assert "width:25.0%" in shown
    assert "predicting: rouge-l 30" in shown
    run.emit("failed", command="predict", reason=BAD)
    run.end()
    shown = job_page(tmp_path)
    assert "Prediction: failed" in shown
    assert "ts-note bad" in shown
    assert "<script" not in shown
    assert (clock(61), clock(3725)) == ("1:01", "1:02:05")


@pytest.mark.slow
def test_predict_look_and_compare_in_the_browser(tab: Tab, studio_url: str, tiny_workspace: Workspace) -> None:
    write_predictions(tiny_workspace.root / "saves" / "before", 12)
    with Run(tiny_workspace.root / "saves" / "before").working("predict"):
        pass
    tab.open(studio_url, "Evaluate & Predict")
    tab.choose("evaluate-run", "saves/one")
    tab.fill("evaluate-output_dir", "saves/page_answers")
    tab.fill("evaluate-max_samples", "12")
    tab.fill("evaluate-max_new_tokens", "4")
    tab.page.click("#evaluate-start")
    tab.until(lambda: "saves/page_answers" in tab.page.input_value("#evaluate-job input"))
    tab.page.reload()  # the page is a view: the newest work is there again
    tab.press("Evaluate & Predict")
    tab.until(lambda: "Prediction: finished" in tab.text("evaluate-panel"), 120)
    tab.until(lambda: "predict_rouge-l" in tab.text("evaluate-numbers"))
    assert tab.page.locator("#evaluate-samples tbody tr").count() == PAGE
    tab.page.click("#evaluate-on")
    tab.until(lambda: tab.page.locator("#evaluate-samples tbody tr").count() == 2)
    tab.press("Compare")
    tab.choose("evaluate-compare-first", "saves/before")
    tab.choose("evaluate-compare-second", "saves/page_answers")
    tab.page.click("#evaluate-compare-run")
    tab.page.wait_for_selector("#evaluate-compared iframe")
    assert "Comparison" in tab.page.frame_locator("#evaluate-compared iframe").locator("h1").inner_text()
    assert tab.page.evaluate("window.hacked === undefined")


@pytest.mark.slow
def test_what_fails_is_explained(tab: Tab, studio_url: str) -> None:
    tab.open(studio_url, "Evaluate & Predict")
    tab.write("evaluate-model", "models/tiny")
    tab.choose("evaluate-template", "chatml")
    tab.page.click("#evaluate-what label:has-text('A benchmark')")
    tab.fill("evaluate-task_dir", "../outside")
    tab.page.click("#evaluate-start")
    tab.page.wait_for_selector("text=outside the workspace")


@pytest.mark.slow
def test_the_evaluate_tab_on_a_phone(phone: Tab, studio_url: str, tiny_workspace: Workspace) -> None:
    write_predictions(tiny_workspace.root / "saves" / "phone", 3)
    with Run(tiny_workspace.root / "saves" / "phone").working("predict"):
        pass
    phone.open(studio_url, "Evaluate & Predict")
    phone.until(lambda: "answer 2" in phone.text("evaluate-samples"))
