"""Answers that stand on the text pass, strangers do not, and every quote is the source's own."""

from __future__ import annotations

import pytest
from tests.synthesis.conftest import BOOK

from tunesmith.config.schema import RunConfig
from tunesmith.synthesis.filters import fault_of
from tunesmith.synthesis.replies import Entry
from tunesmith.synthesis.support import Ground
from tunesmith.synthesis.words import says_number

TEXTS = {name: (BOOK / f"{name}.txt").read_text(encoding="utf-8") for name in ("palace_novel", "harbour_novel")}
SUPPORTED = {
    "palace_novel": [
        "皇帝三夜没有合眼，是因为他一直在御书房批阅奏折，太医警告这样下去咳疾会落下病根。",
        "这体现了皇帝体恤百姓的品格：江南遭遇水患，他宁可让国库空虚，也要免去三县一年的田赋，因为他认为人心比银子更重要。",
        "苏婉炖的梨汤用了雪梨、川贝和放了七年的陈皮，陈皮是她父亲从南边带来的。",
        "太后认为苏婉是个有心的孩子，并提醒皇帝，人这一辈子遇不到几个有心的人。",
    ],
    "harbour_novel": [
        "Captain Marsh burned the lamp at full height because a low flame could not be seen by a ship in the fog.",
        "The Swallow survived because Tom Avery steered by the sound of the fog bell, which Nell rang with a hammer.",
        "Mr. Pym worries about the cost of the oil and the frightened town; the captain cares about the eleven men.",
        "Nell strikes the bell with a hammer since the rope had broken in spring.",
    ],
}
STRANGERS = {
    "palace_novel": [
        "机器学习模型通过梯度下降不断调整参数，从而降低训练损失，最终在测试集上取得较好的泛化效果。",
        "项羽在垓下之战中被刘邦的军队围困，四面楚歌，最终自刎于乌江。",
        "皇帝年轻时曾随先帝出征西域，在沙漠里迷路七天，靠骆驼的血活了下来，因此他最讨厌战争。",
    ],
    "harbour_novel": [
        "Photosynthesis converts sunlight into chemical energy inside the chloroplasts of green plants.",
        "The captain was later promoted to admiral and moved to London with his wife and seven children.",
        "Marsh sold the lighthouse to a rich merchant, who turned it into a hotel for summer visitors.",
    ],
}
LEAST = {"palace_novel": 0.15, "harbour_novel": 0.5}
CASES = [(name, answer, True) for name in TEXTS for answer in SUPPORTED[name]] + [
    (name, answer, False) for name in TEXTS for answer in STRANGERS[name]
]


@pytest.mark.parametrize(("name", "answer", "stands"), CASES, ids=[f"{n}-{a[:12]}" for n, a, _ in CASES])
def test_the_default_limits_tell_answers_from_strangers(name: str, answer: str, stands: bool) -> None:
    ground = Ground(TEXTS[name], 0, len(TEXTS[name]))
    assert (ground.share("", answer) >= LEAST[name]) is stands
    if stands:
        found = ground.best("", answer)
        assert found
        assert found.found_by == "rule"
        assert TEXTS[name][found.start : found.end].strip()


@pytest.mark.parametrize(
    ("quote", "stands_there"),
    [
        ("那好歹用一碗梨汤。", "那好歹用一碗梨汤。”"),
        ("皇上, 您已经三夜没有合眼了 , 太医说", "皇上，您已经三夜没有合眼了，太医说"),
        ("“第三场雪......里头翻动奏折的声音，一页，又一页”", "里头翻动奏折的声音，一页，又一页"),
        ("皇上您已经四夜没有合眼了", None),
        ("，。", None),
        ("", None),
    ],
)
def test_a_copied_quote_is_found_and_given_in_the_sources_own_signs(quote: str, stands_there: str | None) -> None:
    text = TEXTS["palace_novel"]
    found = Ground(text, 0, len(text)).find(quote)
    assert (text[found.start : found.end] if found else None) == stands_there


def test_a_quote_from_another_chunk_does_not_count() -> None:
    text = TEXTS["harbour_novel"]
    end = text.index("CHAPTER TWO")
    assert Ground(text, 0, end).find("He cannot see us yet.") is None
    assert Ground(text, end, len(text)).find("He cannot see us yet.") is not None


@pytest.mark.parametrize(
    ("text", "number", "there"),
    [
        ("a hundred and eleven steps", "111", True),
        ("forty yards", "40", True),
        ("forty-two", "42", True),
        ("forty yards", "41", False),
        ("三千六百两银子", "3600", True),
        ("四十万两", "400000", True),
        ("一九四九年", "1949", True),
        ("十二年", "12", True),
        ("1,682 ships", "1682", True),
        ("in 16820", "1682", False),
        ("3.5 knots", "3.5", True),
        ("13.5 knots", "3.5", False),
    ],
)
def test_numbers_in_words(text: str, number: str, there: bool) -> None:
    assert says_number(text, number) is there


def test_invented_numbers_are_named() -> None:
    ground = Ground(TEXTS["harbour_novel"], 0, len(TEXTS["harbour_novel"]))
    assert ground.unknown_numbers("", "She was 19, climbed 111 steps and burned 75 gallons.") == ["75"]
    assert ground.unknown_numbers("What about 75 gallons?", "It was not 75.") == []


CONFIG = RunConfig.from_dict({"min_answer_chars": 4, "max_answer_chars": 200}, command="data make")


@pytest.mark.parametrize(
    ("entry", "script", "reason"),
    [
        (Entry("为什么下雪了？", "因为天气很冷。"), "zh", None),
        (Entry("为啥", "因为天气很冷。"), "zh", "the question is too short"),
        (Entry("为什么下雪了？", "冷"), "zh", "the answer is too short"),
        (Entry("为什么下雪了？", "冷" * 201), "zh", "the answer is too long"),
        (Entry("为什么下雪了？", "Because it is cold."), "zh", "the answer is in the wrong language"),
        (Entry("Why does it snow?", "因为天气很冷。"), "zh", "the question is in the wrong language"),
        (Entry("文中的皇帝为什么生气？", "因为天气很冷。"), "zh", "the question speaks of the text"),
        (Entry("What is the passage about?", "It is about snow."), "en", "the question speaks of the text"),
        (Entry("Why does it snow?", "He was cold. " * 3), "en", "the answer repeats itself"),
        (Entry("Why does it snow?", "It is cold.", "", (("Hm?", "He is cold."),)), "en", "the question is too short"),
    ],
)  # fmt: skip
def test_filters(entry: Entry, script: str, reason: str | None) -> None:
    found = fault_of(entry, CONFIG, script)
    assert (found[0] if found else None) == reason


def test_language_any_lets_all_pass() -> None:
    assert fault_of(Entry("Why does it snow?", "因为天气很冷。"), CONFIG.replace(language="any"), "zh") is None
    assert fault_of(Entry("Why does it snow?", "It is cold."), CONFIG.replace(language="zh"), "en") is not None
