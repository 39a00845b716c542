"""The chat page in real Chromium: what a user does, what is seen, what the model gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import wait_until
from tests.studio.conftest import Model, Shown, make_model

from tunesmith.studio.head import chat_head
from tunesmith.studio.page import chat_page, launch
from tunesmith.studio.settings import PageSettings

pytestmark = pytest.mark.slow

LONG = "the quick brown fox jumps over the lazy dog " * 20
TOOLS = [{"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}]
CALL = """<think>
Where?
</think>

Let me see.
<tool_call>
{"name": "weather", "arguments": {"city": "Köln"}}
</tool_call>"""


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    made = make_model()
    yield made
    made.engine.pause = 0.0
    made.seat.unload()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    settings = PageSettings(port=0)
    page = chat_page(model.seat, model.config)
    yield launch(page, settings, settings.free_port(), chat_head())
    page.close(verbose=False)


@pytest.fixture
def shown(browser: Any, url: str, model: Model, tmp_path: Path) -> Iterator[Shown]:
    """A window of its own for each test; the model says Hello! at once."""
    model.says("Hello!")
    model.engine.pause, model.engine.failing = 0.0, None
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = Shown(context.new_page())
    opened.open(url)
    yield opened
    assert opened.errors == []
    outside = [one for one in opened.requests if not one.startswith((url, "data:", "blob:"))]
    assert outside == [], "the page fetches something from elsewhere"
    context.close()


def test_question_and_answer(shown: Shown, model: Model) -> None:
    assert "org/tiny-model is loaded" in shown.status
    shown.ask("Who are you?")
    assert "Who are you?" in shown.text
    assert "Hello!" in shown.text
    shown.ask("And now?")
    assert model.prompt().count("Hello!") == 1  # the history went along
    assert model.prompt().endswith("user\nAnd now?<|im_end|>\n<|im_start|>assistant\n")
    assert "tokens/s" in shown.note
    assert "stop" not in shown.note


def test_an_answer_is_seen_while_it_grows_and_can_be_stopped(shown: Shown, model: Model) -> None:
    model.says(LONG)
    model.engine.pause = 0.02
    shown.send("Tell me.")
    shown.until(lambda: "the quick brown" in shown.text)
    shown.page.locator("#chat-box button.stop-button").dispatch_event("click")
    shown.until(lambda: "stopped" in shown.note)
    wait_until(lambda: model.seat.n_running == 0)
    assert len(shown.text) < len(LONG)
    model.engine.pause = 0.0
    model.says("Yes.")
    shown.ask("Go on.")  # what had come is kept as the assistant's message
    assert "the quick brown" in model.prompt()


def test_closing_the_window_frees_the_place(browser: Any, url: str, model: Model) -> None:
    model.says(LONG)
    model.engine.pause = 0.02
    context = browser.new_context()
    opened = Shown(context.new_page())
    opened.open(url)
    opened.send("Tell me.")
    opened.until(lambda: "the quick" in opened.text)
    assert model.seat.n_running == 1
    context.close()
    wait_until(lambda: model.seat.n_running == 0)


def test_two_windows_are_answered_together(browser: Any, url: str, shown: Shown, model: Model) -> None:
    model.says(LONG)
    model.engine.pause = 0.02
    context = browser.new_context()
    other = Shown(context.new_page())
    other.open(url)
    shown.send("one")
    other.send("two")
    shown.until(lambda: model.seat.n_running == 2)
    other.until(lambda: "the quick" in other.text)
    other.page.locator("#chat-box button.stop-button").dispatch_event("click")
    other.until(lambda: "stopped" in other.note)
    assert model.seat.n_running == 1  # the other one goes on
    assert "two" not in shown.text
    context.close()
    shown.page.click("#chat-clear")
    wait_until(lambda: model.seat.n_running == 0)


def test_clear_forgets(shown: Shown, model: Model) -> None:
    shown.ask("Remember 4711.")
    shown.page.click("#chat-clear")
    shown.until(lambda: "4711" not in shown.text)
    shown.ask("Which number?")
    assert "4711" not in model.prompt()


def test_clear_while_an_answer_grows(shown: Shown, model: Model) -> None:
    model.says(LONG)
    model.engine.pause = 0.02
    shown.send("Tell me.")
    shown.until(lambda: "the quick" in shown.text)
    shown.page.click("#chat-clear")
    shown.until(lambda: "the quick" not in shown.text)
    wait_until(lambda: model.seat.n_running == 0)
    shown.page.wait_for_timeout(300)
    assert "the quick" not in shown.text  # what was under way does not come back
    model.engine.pause = 0.0
    model.says("Yes.")
    shown.ask("Hi")
    assert "Tell me" not in model.prompt()


def test_retry_and_undo(shown: Shown, model: Model) -> None:
    model.says("First.", "Second.")
    shown.ask("Who?")
    shown.page.click("#chat-window button[aria-label='Retry']")
    shown.until(lambda: "Second." in shown.text)
    assert "First." not in shown.text
    assert "First." not in model.prompt()
    shown.page.click("#chat-window button[aria-label='Undo']")
    shown.until(lambda: "Second." not in shown.text)
    assert shown.page.input_value("#chat-box textarea") == "Who?"


def test_system_tools_thinking_and_keys_reach_the_model(shown: Shown, model: Model) -> None:
    shown.page.fill("#chat-system textarea", "Be kind.")
    shown.page.click("text=Tools")
    shown.page.fill("#chat-tools textarea", json.dumps(TOOLS))
    shown.page.click("#chat-thinking label:has-text('off')")
    for key, value in {"max_new_tokens": "7", "temperature": "0", "top_p": "0.5", "top_k": "9", "seed": "3"}.items():
        shown.page.fill(f"#chat-{key} input", value)
    shown.page.fill("#chat-repetition_penalty input", "1.1")
    shown.page.fill("#chat-stop-texts textarea", "END")
    shown.ask("Hi")
    prompt, sampling = model.prompt(), model.engine.requests[-1].sampling
    assert "Be kind." in prompt
    assert '"name": "weather"' in prompt
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert sampling.is_greedy
    assert (sampling.max_new_tokens, sampling.top_p, sampling.top_k, sampling.seed) == (7, 0.5, 9, 3)
    assert (sampling.repetition_penalty, sampling.stop) == (1.1, ("END",))


def test_thoughts_and_calls_are_folded(shown: Shown, model: Model) -> None:
    model.says(CALL, "It rains.")
    shown.page.click("text=Tools")
    shown.page.fill("#chat-tools textarea", json.dumps(TOOLS))
    shown.ask("The weather?")
    assert "Thought" in shown.text
    assert "Let me see." in shown.text
    assert "Call of weather" in shown.text
    shown.until(lambda: not shown.page.is_visible("text=Where?"))
    shown.page.click("text=Thought")
    shown.page.wait_for_selector("text=Where?")
    shown.page.click("#chat-role label:has-text('Tool result')")
    shown.ask('{"rain": true}')
    assert "It rains." in shown.text
    assert '<tool_response>\n{"rain": true}\n</tool_response>' in model.prompt()
    assert "Köln" in model.prompt()


def test_what_looks_like_html_is_text(shown: Shown, model: Model) -> None:
    model.says("<script>window.hacked = 1</script> <b>bold</b> `<i>` <img src=x onerror='window.hacked=1'> *it*")
    shown.ask("<u>x</u>")
    assert "<script>window.hacked = 1</script> <b>bold</b> <i>" in shown.text
    assert "<u>x</u>" in shown.text
    assert shown.page.evaluate("window.hacked === undefined")
    assert shown.page.locator("#chat-window em").inner_text() == "it"


def test_copy(shown: Shown, model: Model) -> None:
    model.says("Copy **me**.")
    shown.ask("Hi")
    shown.page.locator("#chat-window button[aria-label='Copy message']").last.click()
    shown.until(lambda: "Copy **me**." in shown.page.evaluate("navigator.clipboard.readText()"))


def test_what_cannot_be_answered_is_said_and_given_back(shown: Shown, model: Model) -> None:
    shown.page.click("text=Tools")
    shown.page.fill("#chat-tools textarea", "[{")
    shown.send("Hi there")
    shown.page.wait_for_selector("text=This cannot be answered")
    shown.until(lambda: shown.page.input_value("#chat-box textarea") == "Hi there")
    assert "Hi there" not in shown.text
    shown.page.fill("#chat-tools textarea", "")
    shown.send("fox " * 5000)
    shown.page.wait_for_selector("text=the model's context holds 4096")
    model.engine.failing = RuntimeError("a fault")
    shown.send("Hi")
    shown.page.wait_for_selector("text=the engine failed")
    model.engine.failing = None
    shown.ask("Hi")
    assert "Hello!" in shown.text


def test_load_and_unload(shown: Shown, model: Model) -> None:
    shown.ask("Hi")
    shown.page.click("#chat-unload")
    shown.until(lambda: "No model is loaded" in shown.status)
    shown.send("Are you there?")
    shown.page.wait_for_selector("text=press Load first")
    model.failing.append("the folder holds no model")
    shown.page.click("#chat-load")
    shown.page.wait_for_selector("text=the folder holds no model")
    shown.until(lambda: shown.page.is_enabled("#chat-load"))
    model.failing.clear()
    shown.page.click("#chat-load")
    shown.until(lambda: "org/tiny-model is loaded" in shown.status)
    shown.ask("Are you there?")


def test_unloading_ends_answers(shown: Shown, model: Model) -> None:
    model.says(LONG)
    model.engine.pause = 0.02
    shown.send("Tell me.")
    shown.until(lambda: "the quick" in shown.text)
    shown.page.click("#chat-unload")
    shown.page.wait_for_selector("text=the model was unloaded")
    shown.page.click("#chat-load")
    shown.until(lambda: "org/tiny-model is loaded" in shown.status)


def test_the_keyboard_is_enough_and_a_phone_is_wide_enough(browser: Any, url: str, model: Model) -> None:
    model.engine.pause = 0.0
    model.says("Hello!")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = Shown(context.new_page())
    opened.open(url)
    opened.page.focus("#chat-box textarea")
    opened.page.keyboard.type("Hi")
    opened.page.keyboard.press("Enter")
    opened.until(lambda: "tokens" in opened.note)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
