"""What was typed and chosen, in every tab and on the page of a chat, is there again after a reload; nothing else is."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from tests.studio.conftest import Shown, Tab, make_model

from tunesmith.inference.engine import SamplingParams
from tunesmith.studio.head import chat_head
from tunesmith.studio.page import chat_page, launch
from tunesmith.studio.seat import ModelSeat
from tunesmith.studio.settings import PageSettings

pytestmark = pytest.mark.slow

TYPED = {
    "Evaluate & Predict": {"evaluate-max_samples": "17", "evaluate-output_dir": "saves/answers"},
    "Chat": {"chat-system": "Be kind.", "chat-temperature": "0.3", "chat-box": "half a"},
    "Export": {"export-export_dir": "models/mine"},
    "Data": {"data-cutoff_len": "64"},
    "Train": {"train-file": "configs/mine.yaml"},
}

SENTENCE = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")
TEXTS = """place => [...document.querySelector(place).querySelectorAll('*')].filter(node =>
  node.checkVisibility() && !node.closest('.live, .run-list, #chat-window'))
  .flatMap(node => [node.placeholder, node.title, node.getAttribute('aria-label'),
    ...[...node.childNodes].filter(one => one.nodeType === 3).map(one => one.data.trim())]).filter(Boolean)"""
"""What stands in a tab, what screen readers say included; not the runs, which have names and logs."""


def value(tab: Tab, elem: str) -> str:
    return str(tab.page.locator(f"#{elem} :is(input, textarea)").first.input_value())


def test_every_tab_has_what_was_typed_after_a_reload(tab: Tab, studio_url: str) -> None:
    page = tab.page
    tab.open(studio_url, "Evaluate & Predict")
    tab.choose("evaluate-run", "saves/one/checkpoint-2")
    page.click("#evaluate-metrics input")
    page.get_by_role("option", name="rouge", exact=True).click()
    page.click("#evaluate-form .advanced > summary")
    page.fill("#evaluate-form .find", "repetition_penalty")
    page.fill("#evaluate-form [name=repetition_penalty]", "1.3")
    for name, fields in TYPED.items():
        tab.press(name)
        for elem, text in fields.items():
            tab.fill(elem, text)
    tab.press("Data")
    tab.choose("data-template", "chatml")
    page.click("#studio-language label:has-text('中文')")
    page.wait_for_selector("#tab-data-button:has-text('数据')")

    page.reload()
    page.wait_for_selector("#tab-data-button:has-text('数据')")
    tab.press("评估与预测")
    tab.until(lambda: value(tab, "evaluate-run") == "saves/one/checkpoint-2")
    assert not page.locator("#evaluate-model input").is_enabled(), "beside a run no model is chosen"
    assert "rouge" in tab.text("evaluate-metrics")
    assert value(tab, "evaluate-temperature") == "0.95", "what nobody touched is as the page says"
    page.click("#evaluate-form .advanced > summary")
    assert "● 1" in page.inner_text("#evaluate-form .advanced > summary")
    page.fill(
        "#evaluate-form .find", "已出现过"
    )  # the part Advanced was laid out in another language before it was opened
    assert page.input_value("#evaluate-form [name=repetition_penalty]") == "1.3"
    chinese = ("评估与预测", "对话", "导出", "数据", "训练")
    for name, fields in zip(chinese, TYPED.values(), strict=True):
        tab.press(name)
        for elem, text in fields.items():
            page.wait_for_selector(f"#{elem} :is(input, textarea)")
            assert value(tab, elem) == text, elem
    tab.press("数据")
    assert value(tab, "data-template") == "chatml"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_a_browser_that_speaks_chinese_sees_the_page_so(browser: Any, studio_url: str) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(studio_url)
    page.wait_for_selector("#train-start:has-text('开始')")
    page.wait_for_selector("#train-form label:has-text('学习率')")
    said = []
    for name in ("train", "evaluate", "chat", "export", "data", "runs"):
        page.click(f"#tab-{name}-button")
        page.wait_for_selector(f"#tab-{name} :is(input, button) >> visible=true")
        texts = page.evaluate(TEXTS, f"#tab-{name}")
        assert len(texts) > 5
        said += [f"{name}: {text}" for text in texts if SENTENCE.search(text)]
    assert said == []
    page.click("#studio-language label:has-text('English')")
    page.click("#tab-train-button")
    page.wait_for_selector("#train-start:has-text('Start')")
    page.reload()
    page.wait_for_selector("#train-form label:has-text('Learning rate')")
    page.wait_for_selector("#train-start:has-text('Start')")
    context.close()


def test_the_page_of_a_chat_comes_back_with_what_was_typed(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    made = chat_page(model.seat, model.config)
    answer = threading.Event()

    def late(seat: ModelSeat) -> SamplingParams:
        assert answer.wait(60)
        return SamplingParams(temperature=0.5, top_p=0.25)

    settings = PageSettings(port=0)
    port = settings.free_port()
    url = launch(made, settings, port, chat_head())
    monkeypatch.setattr(ModelSeat, "defaults", property(late))
    context = browser.new_context()
    shown = Shown(context.new_page())
    shown.open(url)
    shown.page.fill("#chat-temperature input", "0.3")  # before the page has heard what the model's keys say
    answer.set()
    shown.until(lambda: shown.page.input_value("#chat-top_p input") == "0.25")
    assert shown.page.input_value("#chat-temperature input") == "0.3"
    shown.page.fill("#chat-system textarea", "Be kind.")
    shown.ask("Hi")
    made.close(verbose=False)
    shown.page.wait_for_selector("#page-away:has-text('conversation will be gone')")
    made = chat_page(model.seat, model.config)
    launch(made, settings, port, chat_head())  # the server is back: another one, which knows nothing of the window
    shown.until(lambda: "Hello!" not in shown.text)
    shown.until(lambda: shown.page.input_value("#chat-temperature input") == "0.3")
    assert shown.page.input_value("#chat-system textarea") == "Be kind."
    assert shown.page.input_value("#chat-box textarea") == "", "what was sent is not there again"
    shown.ask("Hi")
    assert "Be kind." in model.prompt()
    assert shown.errors == []
    context.close()
    made.close(verbose=False)
    model.seat.unload()
