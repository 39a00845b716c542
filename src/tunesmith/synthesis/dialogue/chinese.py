"""Who speaks a quote of Chinese prose, as the words around it say: 皇上道：“……”, “……”皇上说, “……”皇上一笑，“……”."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

from tunesmith.synthesis.dialogue.subject import PRONOUN, Subject

_VERB = (
    r"(?:说道|说|问道|问|答道|回答|答|道|喊道|喊|叫道|叫|骂道|骂|喝道|喝|叹道|叹|笑道|怒道|哭道|嚷道|嚷|吩咐|命令|解释|"
    r"补充|反问|追问|低语|嘟囔|喃喃|自语|开口|接口|插嘴|应道|应声|奏道|禀道|回禀|禀报|劝道|劝|安慰|提醒|警告|宣布|念道|唤道|唤)"
)
_BEFORE = re.compile(rf"(?:{_VERB}(?:了?一?[句声])?|[\u4e00-\u9fff])\s*[：:]\s*$|{_VERB}(?:了?一?[句声])?\s*[，,]?\s*$")
_AFTER = re.compile(rf"[^。！？\n“”]{{0,30}}?{_VERB}")
_THOUGHT = re.compile(
    r"(?:心想|暗想|想道|心道|暗道|心里想|寻思|心里说|写道|写着|上书|题着|刻着)[^。！？]{0,4}\s*[：:，,]?\s*$"
)
_SENTENCE_END = re.compile(r"[。！？!?\n”…]")
_LEADING = re.compile(
    r"^(?:这时候?|此时|那时|只见|只听|却见|忽然|突然|忽听|于是|然后|接着|随后|过了[^，]{1,6}，|半晌|良久|片刻|末了|最后|可是|但是|但|"
    r"而|却|又|也|还是|那|这|正说着，?|话音[刚未]落，?|一旁的?|身边的?|站在一旁的|年轻的)+"
)
_NOUNS = (
    r"(?:小?太监|宫女|侍卫|丫头|丫鬟|婢女|仆人|老者|老人|老头|老太太|少年|少女|女子|男子|汉子|和尚|道士|道人|掌柜的?|店小二|"
    r"将军|大臣|尚书|太医|侍郎|妇人|男人|女人|孩子|众人|大家|那人|有人|来人|一人|士兵|兵士|医生|护士|老师|先生|学生|警察|司机|"
    r"母亲|父亲|妈妈|爸爸|娘|爹|哥哥|姐姐|弟弟|妹妹|奶奶|爷爷|师父|徒弟|对方)"
)
_TITLE = r"总管|尚书|侍郎|将军|太监|小太监|丞相|大人|掌柜|医生|老师|警官|队长|经理|教授"
_SIMPLE = str.maketrans(
    "說問聽見這時過來還後對給讓請為與從話聲開頭點張氣極連應該嗎麼個們將",
    "说问听见这时过来还后对给让请为与从话声开头点张气极连应该吗么个们将",
)
"""Traditional characters of the words that rules look for; lengths stay, so places do."""
_START = re.compile(r"[\u4e00-\u9fff]{2,4}")
_CLAUSE = re.compile(r"[，。！？；：、…\s]+")
_HAN = r"[\u4e00-\u9fff]"
_BOUND_BEFORE = "对向跟朝和与给把被让叫请问找看见替为同的了着过往从在到望等陪扶拉握住抱"
"""A name behind one of these is no subject."""
_LEAST = 2
"""Clauses that a name must begin."""
_NO_NAME = re.compile(rf"^[他她它我你这那]|^{_VERB}|{_VERB}$")


def sentence_before(text: str) -> str:
    """The sentence that leads up to a quote, of the narration before it."""
    body = text.rstrip()
    ends = [match.end() for match in _SENTENCE_END.finditer(body, 0, max(0, len(body) - 1))]
    return body[ends[-1] if ends else 0 :].strip(" \t\r\n\u3000")


def subject_before(before: str, names: Sequence[str]) -> Subject | None:
    """Who speaks the quote behind these words; None where they do not lead up to one."""
    sentence = sentence_before(before)
    plain = sentence.translate(_SIMPLE)
    if _THOUGHT.search(plain):
        thinker = subject_of(sentence, names)
        return Subject(thinker.name if thinker else None, is_thought=True)
    if not sentence or not _BEFORE.search(plain):
        return None
    return subject_of(sentence, names) or Subject(first_noun(plain))


def subject_after(after: str, names: Sequence[str], *, is_followed: bool) -> Subject | None:
    """Who speaks the quote before these words.

    Args:
        after: narration up to the next quote or the end of the paragraph.
        names: known people.
        is_followed: another quote of the same paragraph follows it.
    """
    sentence = re.split(r"[。！？\n]", after, maxsplit=1)[0]
    if not sentence.strip() or sentence[0] in "，。、；：":
        return None
    leads_on = re.search(r"[：:]\s*$", after.strip()) is not None and sentence.strip() == after.strip()
    has_verb = _AFTER.match(sentence.translate(_SIMPLE)) and not leads_on
    is_beat = is_followed and re.search(r"[，,]\s*$", after.rstrip()) is not None
    if not has_verb and not is_beat:
        return None
    return subject_of(sentence, names)


def subject_of(sentence: str, names: Sequence[str]) -> Subject | None:
    """The person of a sentence that stands where a subject stands: the last clause that begins with one says it."""
    plain = sentence.translate(_SIMPLE)
    known = {name.translate(_SIMPLE): name for name in names}
    clauses = [_LEADING.sub("", clause.strip(" \t\u3000")) for clause in re.split(r"[，,；;]", plain)]
    any_name = "|".join(map(re.escape, known)) or r"(?!)"
    if heard := re.search(rf"[听闻][得到见]?({any_name})", clauses[-1]):
        return Subject(known[heard[1]])
    for clause in reversed(clauses):
        if match := re.match(rf"(?:{_TITLE})?({any_name})", clause):
            return Subject(known[match[1]])
        if match := re.match(r"[他她它](?!们)", clause):
            return Subject(PRONOUN, match[0])
        if re.match(r"我(?!们)", clause):
            return Subject("我")
        if match := re.match(rf"{_HAN}{{0,3}}?{_NOUNS}", clause):
            return Subject(match[0])
    for clause in clauses:
        for match in re.finditer(any_name, clause[:10]):
            if match.start() and clause[match.start() - 1] not in _BOUND_BEFORE:
                return Subject(known[match[0]])
    return None


def discover(leads: Sequence[str], narration: str) -> list[str]:
    """Names of people: what begins a sentence that leads up to speech, and begins clauses of the narration elsewhere.

    Args:
        leads: sentences before and behind quotes.
        narration: the text without its quotes.
    """
    starts = {
        match[0] for lead in leads if re.search(_VERB, lead.translate(_SIMPLE)) and (match := _START.match(_bare(lead)))
    }
    candidates = {start[:size] for start in starts for size in (2, 3, 4) if len(start) >= size}
    heads = [match for clause in _CLAUSE.split(narration) if (match := _START.match(_bare(clause.strip())))]
    counts = Counter(match[0][:size] for match in heads for size in (2, 3, 4) if len(match[0]) >= size)
    names = []
    for name in sorted(candidates, key=len):
        if counts[name] < _LEAST or _NO_NAME.search(name):
            continue
        longer = max((counts[other] for other in candidates if other[:-1] == name), default=0)
        if longer < max(_LEAST, 0.8 * counts[name]):
            names.append(name)
    return [name for name in names if not any(name != other and name.startswith(other) for other in names)]


def _bare(clause: str) -> str:
    """A clause without the words before its subject, its own characters kept."""
    plain = clause.translate(_SIMPLE)
    return clause[len(plain) - len(_LEADING.sub("", plain)) :]


def first_noun(sentence: str) -> str | None:
    """The noun that a sentence begins with, such as a name that stands nowhere else; None where a verb begins it."""
    import jieba
    from jieba import posseg

    jieba.setLogLevel(logging.WARNING)  # it tells about its dictionary
    noun = ""
    for token in posseg.lcut(_LEADING.sub("", sentence)):
        if not token.flag.startswith("n"):
            break
        noun += token.word
    return noun if len(noun) > 1 else None
