"""Who speaks a quote of English prose, as the words around it say: said Nell; the captain answered; Nell laughed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunesmith.synthesis.dialogue.subject import PRONOUN, Subject

_VERBS = (
    "said says asked asks replied answered cried whispered shouted muttered called exclaimed added continued remarked "
    "returned began murmured ordered demanded told observed declared repeated explained agreed admitted suggested "
    "inquired enquired insisted interrupted snapped growled sighed laughed yelled screamed gasped grumbled hissed "
    "protested responded retorted roared sobbed stammered warned begged pleaded announced commanded concluded promised"
)
_VERB = rf"(?:{'|'.join(_VERBS.split())})"
_TITLE = (
    r"(?:Mr|Mrs|Ms|Dr|Prof|Capt|Col|Gen|Lt|Sir|Lady|Lord|Captain|Miss|Aunt|Uncle|King|Queen|Prince|Princess|Old|Young)"
)
_NAME = rf"(?:{_TITLE}\.?\s+)*[A-Z][\w’'-]*[a-z](?:\s+(?:of\s+)?[A-Z][\w’'-]*[a-z])*"
_NOUN = r"[Tt]he(?:\s+[a-z][\w’'-]*){0,2}?\s+[a-z][\w’'-]*"
_WHO = rf"(?P<who>(?:[Hh]e|[Ss]he|I)\b|{_NAME}|{_NOUN})"
_ADVERB = r"(?:\s+[a-z]+ly|\s+then|\s+at last|\s+at once|\s+only|\s+again|\s+also)?"
_INVERTED = re.compile(rf"^[,\s—-]*{_VERB}{_ADVERB}\s+{_WHO}")
_STRAIGHT = re.compile(rf"^[,\s—-]*{_WHO}{_ADVERB}\s+(?:had\s+)?{_VERB}\b")
_LEADS = re.compile(rf"\b{_VERB}\b[^.!?]*[,:]\s*$|:\s*$")
_THINKS_BEFORE = re.compile(r"\b(?:thought|wondered|wrote|read)\b[^.!?]*[,:]\s*$")
_THINKS_AFTER = re.compile(r"^[,\s—-]*(?:(?:\w+\s+){0,2}(?:thought|wondered|wrote))\b")
_BEGINS = re.compile(rf"^(?:(?:Then|And|But|So|Now|At last|At that|Suddenly),?\s+)?{_WHO}\b")
_NO_NAME_WORDS = """
the then there this that it they we you in on at for from and but so when while if as what i he she
"""
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())


def _sentences(narration: str) -> list[str]:
    """Sentences of narration; titles with a full stop end none."""
    parts = re.split(r"(?<![A-Z][a-z]\.)(?<!Mrs\.)(?<!Capt\.)(?<=[.!?])\s+", " ".join(narration.split()))
    return [part for part in parts if part]


def subject_before(before: str, names: Sequence[str]) -> Subject | None:
    """Who speaks the quote behind this narration, which begins its paragraph or follows a quote; None: it does not say.

    A sentence that leads up to the quote says it with a verb of speech; one that only tells what somebody does says it
    too, if it ends right before the quote: `Nell laughed. "..."`.
    """
    parts = _sentences(before)
    if not parts:
        return None
    last = parts[-1]
    if _THINKS_BEFORE.search(last):
        match = _BEGINS.match(last)
        thinker = _subject(match, names) if match else None
        return Subject(thinker.name if thinker else None, is_thought=True)
    if _LEADS.search(last):
        if match := re.search(rf"{_VERB}{_ADVERB}\s+{_WHO}[,:]\s*$", last):
            return _subject(match, names)
        match = _BEGINS.match(last)
        return _subject(match, names) if match else Subject(None)
    doers = [subject for part in parts if (match := _BEGINS.match(part)) and (subject := _subject(match, names))]
    named = {subject.name for subject in doers if subject.name != PRONOUN}
    if doers and _BEGINS.match(last) and len(named) <= 1:
        return doers[-1] if doers[-1].name != PRONOUN or not named else Subject(named.pop())
    return None


def subject_after(after: str, names: Sequence[str]) -> Subject | None:
    """Who speaks the quote before this narration; None: it does not say."""
    flat = " ".join(after.split())
    if _THINKS_AFTER.match(flat):
        return Subject(None, is_thought=True)
    match = _INVERTED.match(flat) or _STRAIGHT.match(flat)
    return _subject(match, names) if match else None


def _subject(match: re.Match[str], names: Sequence[str]) -> Subject | None:
    """The person that a match found; known names are told by all the words that follow."""
    who, rest = match["who"], match.string[match.start("who") :]
    if who.lower() in ("he", "she"):
        return Subject(PRONOUN, who.lower())
    for name in sorted(names, key=len, reverse=True):
        if re.match(rf"{re.escape(name)}\b", rest, re.IGNORECASE):
            return Subject(name)
    if who.split()[0].lower() in _NO_NAMES and not who.lower().startswith("the "):
        return Subject("I") if who == "I" else None
    return Subject(re.sub(rf"\s+{_VERB}$", "", who))


def discover(afters: Sequence[str], befores: Sequence[str]) -> list[str]:
    """Names of people: subjects of verbs of speech around quotes."""
    found = set()
    for text in afters:
        flat = " ".join(text.split())
        if match := _INVERTED.match(flat) or _STRAIGHT.match(flat):
            found.add(match["who"])
    for text in befores:
        parts = _sentences(text)
        if parts and _LEADS.search(parts[-1]) and (match := _BEGINS.match(parts[-1])):
            found.add(match["who"])
    return [name for name in sorted(found) if name[0].isupper() and name.lower() not in _NO_NAMES]
