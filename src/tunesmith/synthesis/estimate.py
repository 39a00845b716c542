"""What making a data set would take: calls, tokens, cost; nothing is asked and nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.synthesis.chunking import Chunk
from tunesmith.synthesis.cost import Meter, prompt_tokens
from tunesmith.synthesis.counting import TokenCounter
from tunesmith.synthesis.entries import EntryMaker
from tunesmith.synthesis.journal import FILE, Journal
from tunesmith.synthesis.opening import is_local, make_meter, model_name

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_USUAL_ANSWER = 160
"""Tokens of a usual entry, for the estimate."""


class _Nobody:
    """An asker that is never asked."""

    name = ""

    async def ask(self, call: object) -> object:
        raise AssertionError

    async def close(self) -> None:
        return


def estimate(config: RunConfig, folder: Path, chunks: Sequence[Chunk], counter: TokenCounter) -> str:
    """The estimate, for the user."""
    meter: Meter = make_meter(config, counter)
    journal = Journal(folder / FILE, _Nobody(), meter)  # type: ignore[arg-type]
    maker = EntryMaker(config, model_name(config), is_local(config), journal)
    groups = list(maker.groups(chunks))
    entries = sum(len(group) for group in groups)
    calls = [(maker.call(group), len(group)) for group in groups]
    coming = [(call, count) for call, count in calls if not journal.knows(call)]
    asked = sum(prompt_tokens(counter, call) for call, _ in coming)
    usual = sum(count for _, count in coming) * _USUAL_ANSWER * config.turns
    most = sum(call.max_tokens for call, _ in coming)
    lines = [
        f"{len(chunks):,} chunks, {sum(chunk.tokens for chunk in chunks):,} tokens (counted by {counter.name})",
        f"{entries:,} entries in {len(calls):,} calls, of which {len(calls) - len(coming):,} are answered already",
        f"prompts {asked:,} tokens, answers about {usual:,} tokens (at most {most:,})",
    ]
    lines += [f"besides, {text}" for text in _extra(config, entries)]
    if is_local(config):
        lines.append("the generator is local: it costs time, not money")
    elif not config.price_prompt and not config.price_completion:
        lines.append("cost: set price_prompt and price_completion (of a million tokens) to see it")
    else:
        worst = meter.price(asked, most) * config.max_attempts
        lines.append(
            f"cost about {meter.price(asked, usual):.4f}, at most {worst:.4f} "
            f"(every entry asked for {config.max_attempts} times, every answer of the longest)"
        )
    if meter.cost:
        lines.append(f"spent so far: {meter.cost:.4f}")
    lines.append("nothing was asked and nothing was written; leave dry_run out to begin")
    return "\n".join(lines)


def _extra(config: RunConfig, entries: int) -> list[str]:
    """Calls whose number is not known before the entries are there."""
    found = []
    if config.check_support == "model":
        found.append(f"up to {entries * config.turns:,} calls to check support, not counted above")
    if config.preference:
        calls = 3 if config.judge == "model" else 1
        found.append(f"up to {entries * calls:,} calls for pairs, not counted above")
    return found
