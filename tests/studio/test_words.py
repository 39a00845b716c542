"""Every text of the pages is there in both languages, and every key has its help in both."""

from __future__ import annotations

import re
from pathlib import Path

import tunesmith
from tunesmith.config.schema import GROUPS, KEYS
from tunesmith.studio.head import chat_head, chinese_help, studio_head
from tunesmith.studio.words import LANGUAGES, say, table

STUDIO = Path(tunesmith.__file__).parent / "studio"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SAME = re.compile(r"([A-Z]\w*|[\W_]|{\w+}|key=value|tokens?|s)*")
"""Chinese texts without a Chinese word: names, signs and what stands in braces."""


def test_every_text_is_there_in_both_languages() -> None:
    assert len(table()) > 100
    for key, texts in table().items():
        assert len(texts) == len(LANGUAGES), key
        assert all(text.strip() for text in texts), key
        english, chinese = texts
        assert CHINESE.search(chinese) or SAME.fullmatch(chinese), key
        assert not CHINESE.search(english), key
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese)), key


def test_every_word_that_the_code_says_is_in_the_table() -> None:
    said = set()
    for path in STUDIO.glob("*.py"):
        said |= set(re.findall(r'\bsay\("([\w.]+)"', path.read_text(encoding="utf-8")))
    assert len(said) > 10
    assert said <= set(table())


def test_what_the_browser_says_is_in_the_table() -> None:
    said = set()
    for path in (STUDIO / "web").glob("*.js"):
        said |= {f"form.{name}" for name in re.findall(r'\bword\("(\w+)"\)', path.read_text(encoding="utf-8"))}
    assert len(said) > 10
    assert said <= set(table())


def test_every_key_and_group_has_chinese_help() -> None:
    names = {*KEYS, *(f"group {group.TITLE}" for group in GROUPS)}
    assert names == set(chinese_help()), "write what is missing into studio/web/help_zh.yaml, and take out what is gone"
    latin = ("LoRA", "PPO", "GRPO", "OFT", "GaLore", "APOLLO", "BAdam", "SwanLab", "Ray", "HyperParallel", "Megatron")
    for name, text in chinese_help().items():
        assert CHINESE.search(text) or text.startswith(latin) or text == "KTransformers", name


def test_both_languages_and_facts() -> None:
    assert say("train.queued", "en", folder="x") == "**x** was put into the queue."
    assert say("train.queued", "zh", folder="x") == "**x** 已加入队列。"
    assert say("tab.train", "no such language") == "Train"


def test_the_head_is_small_and_holds_no_end_of_a_script() -> None:
    for head, most in ((studio_head(), 400_000), (chat_head(), 40_000)):
        assert head.count("</script>") == 1
        assert len(head.encode()) < most
