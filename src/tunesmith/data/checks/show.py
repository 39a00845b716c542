"""What a check found, for people: lines of text, most important last, where the eye rests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tunesmith.core.types import Source
from tunesmith.data.checks.alike import Matches
from tunesmith.data.checks.lengths import bar_lines, percentiles
from tunesmith.data.checks.result import CheckResult, DatasetCheck

_SHOWN_PAIRS = 5
_SHOWN_REASONS = 5
_SHOWN_REJECTS = 20
_ROLES = {"train": "training", "eval": "evaluation"}
_LEAKS = {
    "exact": "stand in the training data as they are",
    "near": "are nearly the same as a training row",
    "prompt": "have a prompt that training answers otherwise",
}


def lines(result: CheckResult) -> Iterator[str]:
    """The whole report; the problems themselves come after it, as an error."""
    yield f"stage {result.stage}, template {result.template}, cutoff_len {result.cutoff_len:,}"
    if result.not_built:
        yield f"{result.not_built} is not built yet: the data is checked, tunesmith train refuses the stage"
    for dataset in result.datasets:
        yield ""
        yield from _dataset(dataset, result.cutoff_len)
    if result.held_out:
        yield f"\nval_size holds {result.held_out:,} rows out for evaluation"
    if result.leaks is not None:
        yield ""
        yield from _leaks(result)
    if result.picture:
        yield f"\nlengths as a picture: {result.picture}"
    yield ""
    warnings = result.warnings()
    yield from (f"warning: {line}" for line in warnings)
    if not result.problems:
        above = f"; {len(warnings)} warning{'s' if len(warnings) > 1 else ''} above" if warnings else ""
        yield (
            f"the data fits stage {result.stage}, every row can be used{above}"
            if not left_out(result)
            else (f"the data fits stage {result.stage}, but for the rows that are left out{above}")
        )


def left_out(result: CheckResult) -> int:
    """Rows that cannot be used, which the configuration lets go."""
    return sum(dataset.report.rejected for dataset in result.datasets)


def _dataset(found: DatasetCheck, cutoff_len: int) -> Iterator[str]:
    report = found.report
    yield f"{report.accounting()}  ({_ROLES[found.role]}, {found.formatting}, {report.path})"
    if report.tokens:
        yield from _tokens(found, cutoff_len)
        yield from (f"  {line}" for line in bar_lines(found.lengths))
    if found.pairs:
        chosen, rejected = found.pairs.means
        yield (
            f"  pairs: {found.pairs.pairs:,}; mean answer: {chosen:.1f} tokens chosen, {rejected:.1f} rejected; "
            f"the longer one is chosen {found.pairs.chosen_longer:,}x, rejected {found.pairs.rejected_longer:,}x"
        )
    if found.labels:
        yield f"  labels: {found.labels.desirable:,} good, {found.labels.undesirable:,} bad"
    yield from _repeats("exact duplicates", found.exact)
    yield from _repeats("near duplicates", found.near)
    yield from _rejects(found)


def _tokens(found: DatasetCheck, cutoff_len: int) -> Iterator[str]:
    report = found.report
    share = 100 * report.trained_tokens / report.tokens
    known = "trained tokens" if not found.pairs and not found.labels else "in answers"
    yield f"  tokens: {report.tokens:,}; {known}: {report.trained_tokens:,} ({share:.1f} %)"
    usual = percentiles(found.lengths)
    yield (
        f"  a row: {sum(found.lengths) / len(found.lengths):.1f} tokens on average; half up to {usual['p50']:,}, "
        f"99 % up to {usual['p99']:,}, the longest {report.longest:,} ({found.longest})"
    )
    if report.lost_tokens:
        yield (
            f"  cut to cutoff_len: {report.truncated:,} rows; {report.lost_tokens:,} tokens lost, "
            f"{report.lost_trained_tokens:,} of them trained; {report.cut_answers:,} rows lost an answer's end token"
        )
    elif report.truncated:
        yield f"  longer than cutoff_len {cutoff_len:,}: {report.truncated:,} rows"


def _repeats(title: str, matches: Matches) -> Iterator[str]:
    yield f"  {title}: {matches.count:,}"
    for pair in matches.pairs[:_SHOWN_PAIRS]:
        alike = "repeats" if pair.similarity == 1 else f"is {pair.similarity:.0%} like"
        yield f"    row {pair.row.row} {alike} {_like(pair.like, pair.row)}"
    if matches.count > _SHOWN_PAIRS:
        yield f"    ... {matches.count - _SHOWN_PAIRS:,} more (--json lists the first {len(matches.pairs)})"


def _like(like: Source, row: Source) -> str:
    return f"row {like.row}" if like.file == row.file else str(like)


def _rejects(found: DatasetCheck) -> Iterator[str]:
    report = found.report
    if not report.rejected:
        return
    yield f"  rejected rows by reason, {report.rejected:,} in all:"
    for reason, count in Counter(report.reasons).most_common(_SHOWN_REASONS):
        yield f"    {count:,}x {reason} ({report.first(f'rejected: {reason}')})"
    if len(report.reasons) > _SHOWN_REASONS:
        yield f"    ... and {len(report.reasons) - _SHOWN_REASONS} other reasons"


def _leaks(result: CheckResult) -> Iterator[str]:
    leaks = result.leaks or {}
    if not any(matches.count for matches in leaks.values()):
        yield "leaks: no evaluation row is known from the training data"
        return
    yield "leaks from training into evaluation:"
    for kind, matches in leaks.items():
        if matches.count:
            yield f"  {matches.count:,} evaluation rows {_LEAKS[kind]}"
        for pair in matches.pairs[:_SHOWN_PAIRS]:
            share = f" ({pair.similarity:.0%} alike)" if pair.similarity < 1 else ""
            yield f"    {pair.row} ~ {pair.like}{share}"
        if matches.count > _SHOWN_PAIRS:
            yield f"    ... {matches.count - _SHOWN_PAIRS:,} more"
