"""Speech in scripts: `NAME: words`, `NAME（direction）：words`, and screenplays with the name on a line of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.synthesis.dialogue.speech import Utterance
from tunesmith.synthesis.sentences import BLANK, is_heading

_DIRECTION = re.compile(r"（[^）]*）|\([^)]*\)|\[[^\]]*\]")
_OPEN, _CLOSE = r"(?:\*\*|【|\[|<b>)?", r"(?:\*\*|】|\]|</b>)?"
_CHINESE_NAME = r"[\u4e00-\u9fff·•A-Za-z0-9]{1,12}"
_LATIN_NAME = r"[A-Z\u00c0-\u00de][\w.'’-]*(?:[ \t]+[A-Za-z\u00c0-\u024f][\w.'’-]*){0,4}"
_LABELLED = re.compile(
    rf"^[ \t\u3000]*{_OPEN}(?P<name>{_LATIN_NAME}|{_CHINESE_NAME}){_CLOSE}[ \t]*(?:{_DIRECTION.pattern})?[ \t]*"
    rf"[:：]{_CLOSE}(?P<words>[^\n]*)$",
    re.MULTILINE,
)
_ALONE = re.compile(r"^[ \t\u3000]*(?P<name>[A-Z][A-Z.'’ -]{1,30}?)[ \t]*(?:\([^)\n]*\))?[ \t]*$")
_NO_NAME_WORDS = """
人物 时间 地点 场景 旁白 字幕 画外音 注 备注 说明 道具 音乐 音效 演员 导演 编剧 剧名 集数
characters character cast time place setting scene act note narrator narration title music sound author int ext fade
cut http https
"""
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_LEAST_SHARE = 0.3
_LEAST_LINES = 3
_PLACE_LINE = re.compile(r"^(?:INT|EXT|FADE|CUT|DISSOLVE|THE END|ACT|SCENE|CHAPTER)\b")


def looks_like_script(text: str) -> bool:
    """Whether so many lines are `NAME: words` (or follow a name alone) that the text must be a script."""
    lines = [line for line in text.splitlines() if line.strip(BLANK)]
    labelled = sum(_label(line) is not None for line in lines)
    if labelled >= max(_LEAST_LINES, _LEAST_SHARE * len(lines)):
        return True
    return len(list(_screenplay(text))) >= max(_LEAST_LINES, _LEAST_SHARE * len(lines) / 2)


def read_script(text: str) -> list[Utterance]:
    """All utterances of a script, in order; a scene begins at each heading."""
    labelled = list(_labelled(text))
    alone = list(_screenplay(text))
    return labelled if len(labelled) >= len(alone) else alone


def _label(line: str) -> re.Match[str] | None:
    match = _LABELLED.match(line)
    if not match or match["name"].lower() in _NO_NAMES or match["words"].startswith("//"):
        return None
    return match


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(start, line without its end) of all lines."""
    place = 0
    for line in text.split("\n"):
        yield place, line.rstrip("\r")
        place += len(line) + 1


def _labelled(text: str) -> Iterator[Utterance]:
    """`NAME: words`, with the lines that go on below it."""
    scene = 0
    speech: list[int] | None = None  # start, end, line
    speaker = ""
    for number, (place, line) in enumerate(_lines(text)):
        match = _label(line)
        goes_on = bool(line.strip(BLANK)) and not match and not is_heading(line) and not _is_direction(line)
        if speech and goes_on:
            speech[1] = place + len(line.rstrip(BLANK))
            continue
        if speech:
            yield _spoken(text, speech, speaker, scene)
            speech = None
        scene += is_heading(line)
        if match:
            speech, speaker = [place + match.start("words"), place + len(line), number], match["name"].strip()
    if speech:
        yield _spoken(text, speech, speaker, scene)


def _screenplay(text: str) -> Iterator[Utterance]:
    """A name in capitals on a line of its own, the words below it up to an empty line."""
    lines = list(_lines(text))
    scene, number = 0, 0
    while number < len(lines):
        line = lines[number][1]
        if not line.strip(BLANK):
            number += 1
            continue
        scene += is_heading(line) or bool(_PLACE_LINE.match(line.strip()))
        match = _ALONE.match(line)
        is_first = number == 0 or not lines[number - 1][1].strip(BLANK)
        last = number
        while last + 1 < len(lines) and lines[last + 1][1].strip(BLANK):
            last += 1
        if match and is_first and last > number and not _PLACE_LINE.match(line.strip()):
            start, end = lines[number + 1][0], lines[last][0] + len(lines[last][1])
            said = _spoken(text, [start, end, number], match["name"].strip(), scene)
            if said.words:
                yield said
        number = last + 1


def _is_direction(line: str) -> bool:
    return not _DIRECTION.sub("", line).strip(BLANK)


def _spoken(text: str, speech: list[int], speaker: str, scene: int) -> Utterance:
    """The words without directions; the span keeps them, for it is the source's."""
    start, end, number = speech
    while start < end and text[start] in BLANK:
        start += 1
    while end > start and text[end - 1] in BLANK:
        end -= 1
    lines = [_DIRECTION.sub("", line).strip(BLANK) for line in text[start:end].split("\n")]
    words = ""
    for line in filter(None, lines):
        words += line if not words or words[-1] >= "\u2e80" else f" {line}"
    words = words.strip(BLANK).removeprefix("“").removesuffix("”") if words.count("“") == 1 else words
    return Utterance(start, end, words, number, scene, speaker)
