"""One person's words and what they answer, against readings by hand; nothing said by others, nothing guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.synthesis.conftest import BOOK

from tunesmith.cli.main import main
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.recipes.dialogue import dialogue
from tunesmith.synthesis.dialogue.novel import SOMEBODY, read_novel
from tunesmith.synthesis.dialogue.script import looks_like_script, read_script
from tunesmith.synthesis.dialogue.speech import Person

MARSH = "Captain Marsh,the captain,Marsh,the old man"
EMPEROR = "皇帝,皇上,四郎"


def run(**keys: Any) -> str:
    settings = {"output_dir": "out", "eval_share": 0.0} | keys
    return dialogue(RunConfig.from_dict(settings, command="data dialogue", rules=True))


def rows(name: str) -> list[dict[str, Any]]:
    found = json.loads(Path("out", f"{name}.json").read_text(encoding="utf-8"))
    for row in found:
        text = Path(row["file"]).read_bytes().decode()
        assert text[row["start"] : row["end"]].encode() == row["quote"].encode()
    return found


def failures() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/failures.jsonl").read_text(encoding="utf-8").splitlines()]


PALACE = {
    "皇上，您已经三夜没有合眼了，太医说再这样下去，咳疾要落下根的。": "太医的话，朕听了二十年，也咳了二十年。",
    "那好歹用一碗梨汤。是苏姑娘亲手炖的。": "她几时来的？",
    "酉时来的，在廊下站了一会儿，听说皇上在批折子，没敢惊动，放下汤就走了。": (
        "糊涂！外头下着这么大的雪，你就让她一个人走回去？"
    ),
    "奴才该死。奴才派顺子打着灯笼送的，姑娘不肯，说雪地里亮堂，用不着灯。": "这倒是她说的话。起来罢，汤留下。",
    "四郎怎么来了？臣女失礼，请皇上恕罪。": "这里没有旁人，叫四郎便好。昨夜的汤，是用什么炖的？",
    "雪梨、川贝，还有一点陈皮。陈皮是家父从南边带来的，放了七年。": "怪不得有一点苦。",
    "苦的才治咳嗽。": "你这话，倒像太傅。折它做什么？",
    "太后宫里的瓶子空了。老人家嘴上不说，心里是喜欢梅花的。": "朕这个做儿子的，竟不如你知道她喜欢什么。",
    "听说北边又要打仗了？": "仗总是要打的。朕只盼着打完这一仗，边关能有十年不闻鼓角。",
    "那百姓就能种十年的地。": "不错。满朝文武同朕算的是粮草和人马，只有你同朕算的是种地。",
    "今年江南水患，税银只收上来六成。": "收不上来便不要收了，传旨，免江南三县一年的田赋。",
    "皇上三思！北边的军饷还没有着落，若再免田赋，国库就空了。": "国库空了可以再攒，人心空了，拿什么去攒？",
    "太后是受了寒，加上年纪大了，须得静养一月，不可动气。": "可有大碍？",
    "你来做什么？前朝那么多事，我这里又不是没有人。": "前朝的事，明日还在。母后只有一个。",
    "那枝梅花，是谁送来的？": "是苏家的女儿。",
    "是个有心的孩子。四郎，人这一辈子，有心的人遇不到几个，你要记得。": "儿子记得。",
}
HARBOUR = {
    "You will wear out the glass, looking at nothing.": "There is a boat in that nothing. The Swallow was due at noon.",
    "The Swallow has been late before.": "Not with Tom Avery at the helm.",
    "Then he is waiting outside the bar until it clears. It is what you would do.": (
        "It is what I would do at sixty. At thirty I would have tried the channel."
    ),
    "How much is left?": (
        "Enough for six hours, if I trim it low. Enough for three, if I burn it so that a man can see it in this."
    ),
    "That is the Swallow.": (
        "Aye. Two points too far south. He cannot see us yet. Can you still ring the old fog bell?"
    ),
    "The rope broke in spring.": "I did not ask about the rope.",
    "Are you mad? The whole town is in the street. They think the church is on fire!": (
        "Good evening, Mr. Pym. Mind the oil."
    ),
    "Do you know what that oil costs?": (
        "I know what a ship costs. I know what eleven men cost, too, and I have never seen that on any of your bills."
    ),
    "And if there is no ship?": (
        "Then I owe the harbour nine gallons of oil, and you may take them out of my pension."
    ),
    "You were right, then.": "No. I was afraid. It comes to the same thing, if you do something about it.",
    "Who rang the bell?": "She did.",
}


@pytest.mark.parametrize(
    ("book", "roles", "by_hand", "wrong"), [("palace_novel", EMPEROR, PALACE, 1), ("harbour_novel", MARSH, HARBOUR, 0)]
)
def test_a_novel_read_by_rules_is_what_was_read_by_hand(
    book: str, roles: str, by_hand: dict[str, str], wrong: int
) -> None:
    run(input_file_path=str(BOOK / f"{book}.txt"), roles=roles)
    found = {row["input"]: row["output"] for row in rows(book)}
    assert {said: answer for said, answer in found.items() if said in by_hand} == by_hand
    assert len(found) - len(by_hand) == wrong, "one answer turns to somebody who has not spoken yet"
    assert all(row["instruction"] == "" for row in rows(book))


def test_the_person_is_told_from_others_in_the_same_text() -> None:
    run(input_file_path=str(BOOK / "palace_novel.txt"), roles="李福")
    outputs = [row["output"] for row in rows("palace_novel")]
    assert len(outputs) == 4
    assert not set(outputs) & set(PALACE.values())
    assert [entry["reason"] for entry in failures()] == ["nobody spoke to them before"]


@pytest.mark.parametrize(
    ("book", "roles", "count", "first", "last"),
    [
        ("palace_script", "皇帝,四郎", 17, ("皇上，四更天了。", "朕知道。把烛花剪一剪。"),
         ("听见你这句话，病就好了一半。", "那儿子再多说几句，让母后全好了。")),
        ("harbour_script", "Marsh,Captain Marsh", 14,
         ("It is five o'clock, and the Swallow was due at noon.", "I can count, girl."),
         ("I am?", "You are. And mind the step; it is the only thing here that I have not had time to break.")),
    ],
)  # fmt: skip
def test_a_script(book: str, roles: str, count: int, first: tuple[str, str], last: tuple[str, str]) -> None:
    told = run(input_file_path=str(BOOK / f"{book}.txt"), roles=roles)
    found = [(row["input"], row["output"]) for row in rows(book)]
    assert len(found) == count
    assert found[0] == first
    assert found[-1] == last
    assert f"requested {count} = kept {count} + failed 0" in told
    assert not any(sign in text for pair in found for text in pair for sign in "（）()"), "directions are not words"


SCENES = {
    "several speakers in a paragraph": (
        "皇帝问：“几岁了？”那孩子答：“七岁。”皇帝点头道：“好。”\n",
        [("皇帝", "几岁了？"), ("孩子", "七岁。"), ("皇帝", "好。")],
    ),
    "a thought is not said": (
        "甄氏对皇上说：“天色不早了。”\n皇帝心想：“她是来催我走的。”便站起身，说：“朕走了。”\n",
        [("甄氏", "天色不早了。"), ("皇帝", "朕走了。")],
    ),
    "traditional characters, corner brackets, somebody heard": (
        "「你來做什麼？」皇帝冷冷地問。\n「臣妾來送茶。」沈眉答道，「是今年的新茶。」\n「放下。」\n「是。」\n"
        "沈眉退到門口，忽聽皇帝問：「茶是誰採的？」\n",
        [("皇帝", "你來做什麼？"), ("沈眉", "臣妾來送茶。是今年的新茶。"), ("皇帝", "放下。"), ("沈眉", "是。"),
         ("皇帝", "茶是誰採的？")],
    ),
    "words in quotation marks that nobody says": (
        "他是所谓的“孤家寡人”，人称“四郎”。\n皇帝道：“朕不信。”\n", [("皇帝", "朕不信。")],
    ),
    "two pronouns of one paragraph are not clear": (
        "皇帝看着沈眉，沈眉也看着他。“你瘦了。”他说。她摇摇头：“皇上才瘦了。”\n",
        [(None, "你瘦了。"), (None, "皇上才瘦了。")],
    ),
    "turns of two": (
        '"You are late," said Darcy.\n\n"I walked," Elizabeth replied. "The road was wet."\n\n"So I see." He looked at '
        'her shoes. "You might have sent for the carriage."\n\n"And miss the rain?" she asked.\n\n'
        'Mr. Darcy almost smiled. '
        '"And miss the rain," he agreed.\n',
        [("Darcy", "You are late."), ("Elizabeth", "I walked. The road was wet."),
         ("Darcy", "So I see. You might have sent for the carriage."), ("Elizabeth", "And miss the rain?"),
         ("Mr. Darcy", "And miss the rain.")],
    ),
    "single quotes and apostrophes": (
        "‘You can’t be serious,’ said Darcy.\n\n‘Never more so,’ Watson answered. ‘Look at the mud.’\n\n"
        "‘It’s only mud.’\n\n"
        "‘It’s from the docks,’ said Watson.\n",
        [("Darcy", "You can’t be serious."), ("Watson", "Never more so. Look at the mud."), ("Darcy", "It’s only mud."),
         ("Watson", "It’s from the docks.")],
    ),
    "a speech over two paragraphs": (
        "“It was a long winter,” Darcy said. “We ate the corn.\n\n“After that there was nothing.”\n\n"
        "“And then?” asked the boy.\n",
        [("Darcy", "It was a long winter. We ate the corn.\nAfter that there was nothing."), ("the boy", "And then?")],
    ),
    "a chain whose end contradicts it is left open": (
        '"One," said Darcy.\n\n"Two," said Jane.\n\n"Three."\n\n"Four."\n\n"Five," said Jane.\n',
        [("Darcy", "One."), ("Jane", "Two."), (None, "Three."), (None, "Four."), ("Jane", "Five.")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SCENES.values(), ids=SCENES)
def test_who_speaks(text: str, expected: list[tuple[str | None, str]]) -> None:
    person = Person(["皇帝", "皇上", "四郎", "Darcy", "Mr. Darcy"])
    assert [(one.speaker, one.words) for one in read_novel(text, person)] == expected


def test_somebody_else_has_no_name() -> None:
    text = "皇帝道：“来人。”\n“奴才在。”\n皇帝道：“去罢。”\n"
    assert [one.speaker for one in read_novel(text, Person(["皇帝"]))] == ["皇帝", SOMEBODY, "皇帝"]


SCREENPLAY = """INT. KITCHEN - NIGHT

MARGE
(tired)
You came back.

HOMER (CONT'D)
I forgot
my hat.

The door closes.

MARGE
It is on your head.
"""


def test_layouts_of_scripts() -> None:
    assert looks_like_script(SCREENPLAY)
    assert [(one.speaker, one.words) for one in read_script(SCREENPLAY)] == [
        ("MARGE", "You came back."), ("HOMER", "I forgot my hat."), ("MARGE", "It is on your head."),
    ]  # fmt: skip
    text = (
        "人物：甲、乙\n\n【甲】：（笑）来了？\n**乙**: 来了，\n  路上下雪。\n\n（甲下。）\n时间：夜\n甲（低声）：嘘。\n"
    )
    assert [(one.speaker, one.words) for one in read_script(text)] == [
        ("甲", "来了？"), ("乙", "来了，路上下雪。"), ("甲", "嘘。"),
    ]  # fmt: skip
    assert not looks_like_script((BOOK / "palace_novel.txt").read_text(encoding="utf-8"))
    assert not looks_like_script("Note: see http://example.org\n\nIt was 12:30.\nNothing else happened.\n")


def test_an_unknown_role_is_told_the_nearest_and_who_speaks() -> None:
    with pytest.raises(DataError) as caught:
        run(input_file_path=str(BOOK / "palace_novel.txt"), roles="苏碗")
    assert "苏碗 is nowhere in the text" in str(caught.value)
    assert "did you mean 苏婉?" in str(caught.value)
    assert "皇帝 (1" in str(caught.value)
    with pytest.raises(DataError, match="nothing that they say was found"):
        run(input_file_path=str(BOOK / "palace_novel.txt"), roles="太傅")
    Path("plain.txt").write_text("Nobody says anything here.", encoding="utf-8")
    with pytest.raises(DataError, match="is the text a novel or a script"):
        run(input_file_path="plain.txt", roles="Nobody")


def test_conversations_hold_earlier_exchanges_and_no_turn_twice() -> None:
    run(input_file_path=str(BOOK / "palace_script.txt"), roles="皇帝,四郎", turns=3, row_system="用四郎的口吻回答问题")
    found = rows("palace_script")
    answers = [answer for row in found for answer in (*(pair[1] for pair in row["history"]), row["output"])]
    assert len(answers) == len(set(answers)) == 17
    assert max(len(row["history"]) for row in found) == 2
    assert {row["system"] for row in found} == {"用四郎的口吻回答问题"}
    info = json.loads(Path("out/dataset_info.json").read_text(encoding="utf-8"))["palace_script"]
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    assert info["columns"] == columns | {"system": "system", "history": "history"}


def test_whole_scenes_are_held_out() -> None:
    run(input_file_path=str(BOOK / "palace_script.txt"), roles="皇帝,四郎", eval_share=0.3)
    train, held = rows("palace_script"), rows("palace_script_eval")
    assert len(train) + len(held) == 17
    assert not {row["chunk"] for row in train} & {row["chunk"] for row in held}


OPEN = (
    "屋里很暗。她坐在窗前，没有回头。\n\n她问：“外头还下雪么？”说完咳了两声。\n\n"
    "那人走近两步，影子落在地上，说：“早停了。”\n\n皇帝放下灯，说：“朕来看看你。”\n"
)


def test_a_model_tells_the_speakers_that_rules_leave_open(endpoint) -> None:
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        asked.append(body["messages"][-1]["content"])
        return '```json\n{"1": "沈眉", "2": "皇帝", "9": "皇帝"}\n```'

    endpoint.answer = answer
    Path("open.txt").write_text(OPEN.replace("她坐在", "沈眉坐在"), encoding="utf-8")
    keys = {"input_file_path": "open.txt", "roles": "皇帝", "base_url": endpoint.url, "generator_model": "fake"}
    before = run(input_file_path="open.txt", roles="皇帝", output_dir="rules")
    assert "1 unclear" in before or "2 unclear" in before
    told = run(**keys, dry_run=True)
    assert "1 calls for the unclear ones" in told
    assert not asked
    run(**keys)
    assert "【1】" in asked[0]
    assert "已知人物：皇帝" in asked[0]
    facts = json.loads(Path("out/making_results.json").read_text(encoding="utf-8"))
    assert facts["speeches"]["unclear"] == 0
    assert facts["speeches"]["told_by_model"] >= 1
    run(**keys)
    assert len(asked) == 1, "the answer is kept"


def test_names_that_a_model_makes_up_do_not_count(endpoint) -> None:
    endpoint.answer = lambda body: '{"1": "Napoleon", "2": "unknown"}'
    Path("open.txt").write_text(OPEN, encoding="utf-8")
    run(input_file_path="open.txt", roles="皇帝", base_url=endpoint.url, generator_model="fake")
    facts = json.loads(Path("out/making_results.json").read_text(encoding="utf-8"))
    assert facts["speeches"]["told_by_model"] == 0


def test_the_tutorials_way(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dataset").mkdir()
    Path("dataset/zhenhuan.txt").write_bytes((BOOK / "palace_script.txt").read_bytes())
    Path(".env").write_text(
        "\n# 提取对话的文本，可以是剧本，可以是小说文本等\nTEXTFILE=./dataset/zhenhuan.txt\n\n"
        "#  要提取对话人物的名字、别名、小名儿\nROLES=皇帝,皇上,四郎\n",
        encoding="utf-8",
    )
    assert main(["data", "dialogue"]) == 0
    assert "dataset=zhenhuan" in capsys.readouterr().out
    for name in ("instruction_dataset.parquet", "zhenhuan.json", "zhenhuan.jsonl"):
        assert Path("output", name).is_file()
    (first, *_) = json.loads(Path("output/zhenhuan.json").read_text(encoding="utf-8"))
    assert first["instruction"] == ""
    assert first["input"] == "皇上，四更天了。"
