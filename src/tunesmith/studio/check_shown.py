"""What `tunesmith data check --json` found, as a page. No Gradio here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.studio.markup import Html, bars, joined, note, page_part, table, tag
from tunesmith.studio.words import say

_SHOWN = 20
_FACTS = ("read", "kept", "rejected", "truncated", "tokens", "trained_tokens", "lost_tokens", "untrained")


def check_page(found: Mapping[str, Any], language: str = "en") -> str:
    """The whole report: what stops training first, then warnings, then every data set."""
    parts: list[Html] = [note(_verdict(found, language), "good" if found["ok"] else "bad")]
    for problem in found["problems"]:
        parts.append(note("\n".join(filter(None, (problem["where"], problem["what"], problem["fix"]))), "bad"))
    parts += [note(line, "warn") for line in found.get("warnings", ())]
    for dataset in found.get("datasets", ()):
        parts += _dataset(dataset, language)
    if found.get("leaks"):
        parts += _leaks(found["leaks"], language)
    return page_part(*parts)


def _verdict(found: Mapping[str, Any], language: str) -> str:
    if not found["ok"]:
        return say("check.bad", language, count=len(found["problems"]))
    left_out = sum(dataset["rejected"] for dataset in found["datasets"])
    return say("check.left_out" if left_out else "check.good", language, stage=found["stage"], count=left_out)


def _dataset(found: Mapping[str, Any], language: str) -> Iterator[Html]:
    yield tag("h3", found["name"])
    yield note(f"{say('check.' + found['role'], language)} · {found['formatting']} · {found['path']}", "quiet")
    facts = [(f"{found[name]:,}", say(f"check.{name}", language)) for name in _FACTS if found[name] is not None]
    if found["trained_share"] is not None:
        facts.append((f"{100 * found['trained_share']:.1f} %", say("check.trained_share", language)))
    facts.append((f"{found['duplicates']['exact']['rows']:,}", say("check.exact", language)))
    facts.append((f"{found['duplicates']['near']['rows']:,}", say("check.near", language)))
    yield facts_of(facts)
    lengths = found["lengths"]
    if lengths["histogram"]:
        yield tag("h3", say("check.lengths", language))
        yield bars([(f"{bar['from']:,} - {bar['to']:,}", bar["rows"]) for bar in lengths["histogram"]])
        usual = ", ".join(f"{name} {lengths[name]:,}" for name in ("p50", "p90", "p99") if name in lengths)
        yield note(say("check.usual", language, mean=lengths["mean"], usual=usual), "quiet")
    yield from _rejects(found, language)
    yield from _repeats(found["duplicates"], language)


def facts_of(facts: Sequence[tuple[str, str]]) -> Html:
    """Numbers in tiles: (number, what it is)."""
    return tag("div", *(tag("div", tag("b", number), tag("span", name)) for number, name in facts), kind="ts-facts")


def _rejects(found: Mapping[str, Any], language: str) -> Iterator[Html]:
    if not found["rejects"]:
        return
    yield tag("h3", say("check.rejects", language, count=found["rejected"]))
    heads = [say(f"check.{name}", language) for name in ("place", "column", "reason", "fix")]
    rows = [
        (f"{one.get('file', '')}, {one.get('row', '')}", one["column"], one["reason"], one["fix"])
        for one in found["rejects"][:_SHOWN]
    ]
    yield table(heads, rows)


def _repeats(found: Mapping[str, Any], language: str) -> Iterator[Html]:
    pairs = [*found["exact"]["first"], *found["near"]["first"]][:_SHOWN]
    if not pairs:
        return
    yield tag("h3", say("check.repeats", language))
    yield _pairs(pairs, language)


def _pairs(pairs: Sequence[Mapping[str, Any]], language: str) -> Html:
    heads = [say(f"check.{name}", language) for name in ("row", "like", "similarity")]
    rows = [
        (f"{one['file']}, {one['row']}", f"{one['like']['file']}, {one['like']['row']}", f"{one['similarity']:.0%}")
        for one in pairs
    ]
    return table(heads, rows, numbers_from=2)


def _leaks(found: Mapping[str, Any], language: str) -> Iterator[Html]:
    yield tag("h3", say("check.leaks", language))
    pairs = [pair for matches in found.values() for pair in matches["first"]][:_SHOWN]
    counts = [(f"{matches['rows']:,}", say(f"check.leak_{kind}", language)) for kind, matches in found.items()]
    yield facts_of(counts)
    if pairs:
        yield joined([_pairs(pairs, language)])
