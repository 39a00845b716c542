"""Under Advanced, in every tab: all keys of the command behind it, and what is set there is what the command gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from tests.studio.conftest import Tab

from tunesmith.config.build import Checks
from tunesmith.config.coerce import MismatchError
from tunesmith.config.dump import set_to_yaml
from tunesmith.config.load import load_config
from tunesmith.config.schema import KEYS, Key, RunConfig
from tunesmith.core.errors import ConfigError
from tunesmith.studio import form
from tunesmith.studio.chat_tab import chat_config
from tunesmith.studio.data_look import Looker
from tunesmith.studio.evaluating import evaluation_config
from tunesmith.studio.exporting import export_config
from tunesmith.studio.making_view import making_config
from tunesmith.studio.page import studio_page
from tunesmith.studio.workspace import Workspace

MODEL = {"model_name_or_path": "models/tiny", "template": "chatml"}
SAMPLES = ("7", "1", "2", "0.25", "true", "false", "some-words", "{a: 1}", "some, words", "0.1, 0.9")
NO_CHECKS = partial(Checks, rules=False, paths=False, unbuilt=False)
ELSEWHERE = {
    "model_name_or_path": "model",
    "template": "template",
    "dataset": "dataset",
    "eval_dataset": "dataset",
    "do_predict": "what",
    "stop": "stop-texts",
}
"""Keys whose control has another name than theirs."""


def _evaluated(workspace: Workspace, what: str, more: form.Said) -> RunConfig:
    return evaluation_config(workspace, what, MODEL, {"eval_dataset": ["identity"]}, more)


TABS: dict[tuple[str, str], Callable[[Workspace, form.Said], RunConfig]] = {
    ("evaluate", "train"): lambda workspace, more: _evaluated(workspace, "data", more),
    ("evaluate", "eval"): lambda workspace, more: _evaluated(workspace, "task", more),
    ("chat", "webchat"): lambda workspace, more: chat_config(workspace, "models/tiny", None, "chatml", more),
    ("export", "export"): lambda workspace, more: export_config(workspace, MODEL, {}, more),
    ("data", "data"): lambda workspace, more: Looker(workspace).config({**MODEL, "dataset": "identity"}, more),
    ("make", "data make"): lambda workspace, more: making_config(workspace, "questions", {}, more),
    ("make", "data dialogue"): lambda workspace, more: making_config(workspace, "speech", {}, more),
}
"""Form of a tab and the command behind it -> what turns what was set into the configuration for the command."""
EACH = pytest.mark.parametrize(("name", "command"), TABS, ids=lambda part: part)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An empty one."""
    return Workspace.at(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def page(workspace: Workspace) -> gr.Blocks:
    async def make() -> gr.Blocks:
        return studio_page(workspace)

    with ThreadPoolExecutor(1) as thread:  # where no event loop runs, Gradio opens one and leaves it open
        return thread.submit(lambda: asyncio.run(make())).result()


def advanced(page: gr.Blocks, name: str) -> dict[str, list[str]]:
    """Command -> keys in the form of a tab."""
    found = next(part for part in page.blocks.values() if getattr(part, "elem_id", None) == f"{name}-form")
    return dict(found.props["advanced"])


def sample(known: Key) -> str:
    """What a field may hold that is not the default."""
    if known.name in ("dataset", "eval_dataset"):
        return "identity"
    choices = [choice for choice in known.choices if choice not in known.not_yet_values]
    choices += ["true", "false"] if "bool" in known.kinds else []
    for text in (*choices, *SAMPLES):
        try:
            if form.value_of(known, text) != known.default:
                return text
        except MismatchError:
            continue
    raise AssertionError(f"{known.name}: find another sample")


@EACH
def test_every_key_of_the_command_has_a_field(page: gr.Blocks, name: str, command: str) -> None:
    names = advanced(page, name)[command]
    assert len(names) == len(set(names)) > 20
    wanted = {key for key, known in KEYS.items() if command in known.commands}
    assert set(names) <= wanted
    ids = {getattr(part, "elem_id", None) for part in page.blocks.values()}
    own = wanted - set(names)
    assert [key for key in own if not {f"{name}-{key}", f"{name}-{ELSEWHERE.get(key)}"} & ids] == []


def test_every_form_of_the_page_is_looked_at(page: gr.Blocks) -> None:
    forms = [part for part in page.blocks.values() if isinstance(part, gr.HTML) and "advanced" in part.props]
    found = {(part.elem_id.removesuffix("-form"), command) for part in forms for command in part.props["advanced"]}
    assert found == {*TABS, ("train", "")}


@EACH
def test_what_is_set_arrives_in_the_configuration_that_is_written(
    page: gr.Blocks, name: str, command: str, workspace: Workspace, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(form, "Checks", NO_CHECKS)  # of rules between keys: here it is one key alone
    for key in advanced(page, name)[command]:
        known, text = KEYS[key], sample(KEYS[key])
        if known.secret:
            with pytest.raises(ConfigError, match=f"{key} is a secret"):
                TABS[name, command](workspace, {key: text})
            continue
        config = TABS[name, command](workspace, {key: text})
        file = tmp_path / "written.yaml"
        file.write_text(set_to_yaml(config))
        again = load_config([str(file)], command, NO_CHECKS())
        assert getattr(again, key) == form.value_of(known, text) != known.default
        assert again.unused == ()


@EACH
def test_the_guard_looks_at_it(name: str, command: str, workspace: Workspace, monkeypatch: Any) -> None:
    make = partial(TABS[name, command], workspace)
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    with pytest.raises(ConfigError, match="outside the workspace"):
        make({"cache_dir": "/tmp/elsewhere"})
    key = "media_dir" if command in KEYS["media_dir"].commands else "cache_dir"
    with pytest.raises(ConfigError, match="outside the workspace"):
        make({key: "../elsewhere"})
    for text in ("${oc.env:HF_TOKEN}", "${${template}:HF_TOKEN}"):
        with pytest.raises(ConfigError, match="environment variables") as found:
            make({"cache_dir": text, "template": "env"})
        assert "very_secret" not in str(found.value)


def test_keys_of_another_command_are_left_out(workspace: Workspace) -> None:
    fields = {"eval_dataset": ["identity"], "output_dir": "out", "task": "mmlu_test", "save_dir": "asked"}
    more = {"run_name": "mine", "default_system": "Be kind."}
    model = {"model_name_or_path": "smollm2-135m", "template": "chatml"}
    predicting, asking = (evaluation_config(workspace, what, model, fields, more) for what in ("data", "task"))
    assert (predicting.run_name, predicting.default_system) == ("mine", "Be kind.")
    assert (asking.run_name, asking.default_system) == (None, "Be kind.")


PLACES = {
    ("evaluate", "train"): ("Evaluate & Predict", "", "evaluate-preview"),
    ("evaluate", "eval"): ("Evaluate & Predict", "#evaluate-what label:has-text('A benchmark')", "evaluate-preview"),
    ("chat", "webchat"): ("Chat", "", "chat-load"),
    ("export", "export"): ("Export", "", "export-preview"),
    ("data", "data"): ("Data", "", "data-show"),
    ("make", "data make"): ("Data", "#tab-data-make-button", "make-preview"),
    ("make", "data dialogue"): (
        "Data",
        "#tab-data-make-button, #make-what label:has-text('One person')",
        "make-preview",
    ),
}
"""Tab, what is pressed before, the button that sends the form."""
OPEN = "form => { for (const one of form.querySelectorAll('details')) one.open = true; }"
WRITE = """(form, said) => {
  for (const [name, text] of Object.entries(said)) {
    const node = form.querySelector(`[name=${name}]`);
    node.value = text;
    node.dispatchEvent(new Event(node.tagName === 'SELECT' ? 'change' : 'input', { bubbles: true }));
  }
}"""
NAMES = "form => [...form.querySelectorAll('[data-key]')].map(node => node.dataset.key)"


@pytest.mark.slow
@EACH
def test_in_the_browser_every_field_is_there_and_is_sent(
    tab: Tab, studio_url: str, page: gr.Blocks, name: str, command: str
) -> None:
    place, before, button = PLACES[name, command]
    tab.open(studio_url, place)
    for press in filter(None, before.split(", ")):
        tab.page.click(press)
    opened = tab.page.locator(f"#{name}-form")
    opened.locator(".advanced > summary").click()
    wanted = advanced(page, name)[command]
    opened.evaluate(OPEN)
    tab.until(lambda: set(opened.evaluate(NAMES)) == set(wanted), 10)
    said = {key: sample(KEYS[key]) for key in wanted if not KEYS[key].secret}
    opened.evaluate(WRITE, said)
    assert opened.locator(".advanced > summary .count").inner_text() == f"● {len(said)}"

    def has_form(request: Any) -> bool:
        return "/queue/join" in request.url and wanted[0] in request.post_data

    with tab.page.expect_request(has_form) as sent:
        tab.page.click(f"#{button}")
    assert said in json.loads(sent.value.post_data)["data"]


@pytest.mark.slow
def test_the_command_that_is_shown_says_it(tab: Tab, studio_url: str) -> None:
    tab.open(studio_url, "Evaluate & Predict")
    tab.page.click("#evaluate-form .advanced > summary")
    tab.page.fill("#evaluate-form .find", "系统提示 default_system")
    tab.page.fill("#evaluate-form [name=default_system]", "Be kind.")
    for what in ("A data set", "A benchmark"):
        tab.page.click(f"#evaluate-what label:has-text('{what}')")
        tab.until(lambda: tab.page.input_value("#evaluate-form [name=default_system]") == "Be kind.")
        tab.page.click("#evaluate-preview")
        word = "eval_dataset=" if what == "A data set" else "task="
        tab.until(lambda word=word: word in tab.text("evaluate-command"))
        assert "default_system: Be kind." in tab.text("evaluate-command")
    tab.press("Export")  # a form is kept while another tab is looked at
    tab.press("Evaluate & Predict")
    assert tab.page.input_value("#evaluate-form [name=default_system]") == "Be kind."
