"""`tunesmith compare RUN_A RUN_B...`: the same samples in several runs, with intervals, wins and losses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith.cli.words import take_switch, take_value
from tunesmith.core.errors import TunesmithError

_USAGE = """\
usage: tunesmith compare RUN_A RUN_B [RUN...] [--json] [--html FILE] [--seed N]

Holds each run against the first on the same rows, of generated_predictions.jsonl (do_predict) or questions.jsonl
(eval): every metric's difference with its 95 % interval (paired bootstrap), wins, losses, and the keys that differ.

  --json       one JSON object instead of the table
  --html FILE  a page with plots and the samples that changed most; nothing in it comes from the network
  --seed N     of the bootstrap; default 0

example:
  tunesmith compare saves/base/predict saves/tuned/predict --html compare.html
"""


def main(words: Sequence[str]) -> None:
    """Compares."""
    if not words or any(word in ("-h", "--help") for word in words):
        print(_USAGE, end="")
        return
    rest = list(words)
    as_json, page, seed = take_switch(rest, "--json"), take_value(rest, "--html"), take_value(rest, "--seed") or "0"
    if not seed.isdecimal():
        raise TunesmithError(f"--seed takes a whole number, not {seed!r}")
    unknown = [word for word in rest if word.startswith("-") or "=" in word]
    if unknown:
        raise TunesmithError(f"compare does not know {' '.join(unknown)}; tunesmith compare -h tells what it knows")
    from tunesmith.evaluation.compare import table_lines
    from tunesmith.recipes import compare

    runs, comparisons, keys = compare.compare(rest, seed=int(seed))
    if page:
        compare.write_page(Path(page).expanduser(), runs, comparisons, keys)
    if as_json:
        print(json.dumps(compare.as_json(runs, comparisons, keys), ensure_ascii=False, default=str))
        return
    if comparisons:
        print("\n".join(table_lines(comparisons)))
    for name, values in keys.items():
        print(f"{name}: {' | '.join(map(str, values))}")
    if page:
        print(f"wrote {page}")
