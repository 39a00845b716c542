"""Every tab for people who see little, have no mouse or a small screen: names, contrast, whole words, the keyboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Tab

from tunesmith.core.runs import LOG_FILE, Run, write_atomic
from tunesmith.studio.workspace import Workspace

pytestmark = pytest.mark.slow

LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
WIDE, PHONE = (1280, 720), (390, 844)
ROLES = frozenset(
    {
        "textbox",
        "combobox",
        "spinbutton",
        "checkbox",
        "radio",
        "slider",
        "button",
        "tab",
        "searchbox",
        "link",
        "listbox",
    }
)
Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def curves(tiny_workspace: Workspace) -> None:
    """A run whose curves are steep, flat and nearly flat."""
    folder = tiny_workspace.root / "saves" / "curves"
    run = Run(folder)
    with run.working("train"):
        for step in range(1, 41):
            shaken = math.sin(step)
            run.emit(
                "log",
                step=step,
                total_steps=40,
                loss=3 / step,
                learning_rate=1e-4 * (1 + 2e-3 * shaken),
                grad_norm=1.0,
                tokens_per_second=123456 + shaken,
            )
    write_atomic(folder / LOG_FILE, "a line of the log\n" * 30)
    write_atomic(folder / "training_args.yaml", (tiny_workspace.root / "saves/one/training_args.yaml").read_text())


@pytest.fixture
def opened(browser: Any, studio_url: str, curves: None) -> Iterator[Open]:
    """Opens windows of a size and a theme."""
    made = []

    def make(size: tuple[int, int] = WIDE, theme: str = "light") -> Tab:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        tab = Tab(context.new_page())
        made.append((context, tab))
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.goto(f"{studio_url}?__theme={theme}")
        tab.page.wait_for_selector("#train-form [data-ready]")
        tab.page.evaluate(LOOK)
        return tab

    yield make
    for context, tab in made:
        assert tab.errors == []
        context.close()


def train(tab: Tab) -> None:
    tab.page.click("#train-preview")
    tab.page.wait_for_selector("#train-yaml .cm-content")


def data(tab: Tab) -> None:
    tab.write("data-model", "models/tiny")
    tab.choose("data-template", "chatml")
    tab.page.click("#data-show")
    tab.until(lambda: "row 5" in tab.text("data-shown"))


def make_data(tab: Tab) -> None:
    tab.page.click("#tab-data-make-button")
    tab.page.wait_for_selector("#make-start")


def benchmark(tab: Tab) -> None:
    tab.page.click("#evaluate-what label:has-text('A benchmark')")
    tab.page.wait_for_selector("#evaluate-task")


def runs(tab: Tab) -> None:
    for name in ("one", "curves"):
        tab.page.locator(f"#runs-list input[data-folder='saves/{name}']").click()
    tab.page.click("#runs-clone button")
    tab.page.click("#runs-compare")
    tab.page.wait_for_selector("#runs-beside [data-curve=loss] svg")
    tab.page.wait_for_selector("#runs-live [data-curve=tokens_per_second] svg")


TABS: dict[str, tuple[str, Callable[[Tab], None]]] = {
    "train": ("Train", train),
    "evaluate": ("Evaluate & Predict", lambda tab: None),
    "benchmark": ("Evaluate & Predict", benchmark),
    "chat": ("Chat", lambda tab: None),
    "export": ("Export", lambda tab: None),
    "data": ("Data", data),
    "make": ("Data", make_data),
    "runs": ("Runs", runs),
}
"""Tab -> its label, what is done in it so that there is something to see."""


def fill(tab: Tab, name: str, shot: Path) -> None:
    """Opens a tab and its part Advanced, with the fields of one group, and keeps a picture."""
    label, act = TABS[name]
    if name != "train":
        tab.press(label)
        tab.page.wait_for_timeout(600)
    act(tab)
    for place in (".advanced:not([open]):visible > summary", ".group:not([open]):visible > summary"):
        for summary in tab.page.locator(f".key-form {place}").all()[:1]:
            summary.click()
    tab.page.wait_for_timeout(300)
    tab.page.screenshot(path=shot, full_page=True)


def unnamed(tab: Tab) -> list[str]:
    """Controls to which the browser gives no accessible name."""
    session = tab.page.context.new_cdp_session(tab.page)
    tree = session.send("Accessibility.getFullAXTree")["nodes"]
    parts = [node for node in tree if not node.get("ignored") and node["role"]["value"] in ROLES]
    assert len(parts) > 10
    nameless = [node["backendDOMNodeId"] for node in parts if not node.get("name", {}).get("value", "").strip()]
    return [str(session.send("DOM.describeNode", {"backendNodeId": one})["node"]) for one in nameless]


@pytest.mark.parametrize(("size", "theme"), [(WIDE, "light"), (PHONE, "light"), (WIDE, "dark"), (PHONE, "dark")])
def test_every_tab_can_be_read(opened: Open, shots: Path, size: tuple[int, int], theme: str) -> None:
    tab = opened(size, theme)
    assert tab.page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    for name in TABS:
        fill(tab, name, shots / f"tab-{name}-{theme}-{size[0]}.png")
        found = tab.page.evaluate("window.look()")
        assert found["words"] > 30, name
        assert (found["pale"], found["cut"], found["outside"]) == ([], [], []), name
        assert unnamed(tab) == [], name
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


FIELDS = """() => [...document.querySelectorAll(
  '#tab-train :is(input, select, textarea, button, summary, .cm-content)')].filter(node =>
  node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !node.disabled && node.tabIndex >= 0 &&
  node.getBoundingClientRect().width > 1).map((node, place) => (node.dataset.place ||= `place-${place}`))"""


def test_the_keyboard_alone_reaches_all_of_the_train_form_and_shows_where_it_is(opened: Open) -> None:
    tab = opened()
    page = tab.page
    page.wait_for_timeout(1500)
    page.evaluate("document.activeElement.blur()")
    wanted = set(page.evaluate(FIELDS))
    assert len(wanted) > 60
    reached: dict[str, str] = {}
    dim = []
    before = ""
    for _ in range(len(wanted) + 60):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place || ''")
        focused = page.evaluate("window.looks(document.activeElement)")
        if before and reached[before] == page.evaluate(
            f"window.looks(document.querySelector('[data-place={before}]'))"
        ):
            dim.append(page.evaluate(f"document.querySelector('[data-place={before}]').outerHTML.slice(0, 200)"))
        if place:
            reached[place] = focused
        before = place
        if place and len(reached) >= len(wanted):
            break
    missed = [
        page.evaluate(f"document.querySelector('[data-place={one}]').outerHTML.slice(0, 200)")
        for one in wanted - set(reached)
    ]
    assert missed == []
    assert dim == [], "the focus does not show"


def press_until(page: Any, is_there: str, key: str = "Tab", most: int = 200) -> None:
    for _ in range(most):
        if page.evaluate(is_there):
            return
        page.keyboard.press(key)
    raise AssertionError(f"never: {is_there}")


def test_a_run_is_previewed_by_the_keyboard_alone(opened: Open) -> None:
    page = opened().page
    page.evaluate("document.activeElement.blur()")
    press_until(page, "document.activeElement.name === 'model_name_or_path'")
    page.keyboard.type("models/tiny")
    press_until(page, "document.activeElement.name === 'finetuning_type'")
    page.keyboard.type("full")  # letters choose in a list
    press_until(page, "document.activeElement.name === 'dataset'")
    page.keyboard.type("identity")
    press_until(page, "document.activeElement.matches('#train-form .advanced > summary')")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("weight_decay")
    press_until(page, "document.activeElement.name === 'weight_decay'")
    page.keyboard.type("0.1")
    press_until(page, "document.activeElement.id === 'train-preview'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#train-yaml .cm-content")
    shown = page.inner_text("#train-yaml")
    for line in (
        "model_name_or_path: models/tiny",
        "finetuning_type: full",
        "dataset: [identity]",
        "weight_decay: 0.1",
    ):
        assert line in shown


MARKS = """name => {
  const texts = [...document.querySelectorAll(`#runs-live [data-curve=${name}] svg text`)];
  const frame = document.querySelector(`#runs-live [data-curve=${name}] svg`).getBoundingClientRect();
  return texts.map(node => {
    const box = node.getBoundingClientRect();
    const isWhole = box.left >= frame.left - 0.5 && box.right <= frame.right + 0.5;
    return [node.textContent, node.getAttribute('text-anchor'), isWhole];
  });
}"""


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_marks_of_a_curve_differ_and_are_whole(opened: Open, size: tuple[int, int]) -> None:
    tab = opened(size)
    tab.press("Runs")
    tab.page.wait_for_selector("#runs-list input[data-folder='saves/curves']")
    tab.page.click("#runs-list input[data-folder='saves/curves']")
    tab.page.wait_for_selector("#runs-live [data-curve=tokens_per_second] svg")
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second"):
        found = tab.page.evaluate(MARKS, name)
        assert all(is_whole for _, _, is_whole in found), (name, found)
        for anchor in ("end", "middle"):
            words = [text for text, where, _ in found if where == anchor]
            assert len(words) == len(set(words)) > 0, (name, found)
