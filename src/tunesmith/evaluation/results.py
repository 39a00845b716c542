"""Files of an evaluation: results.json and results.log as users know them, summary.json, a row a question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.runs import write_atomic, write_json
from tunesmith.evaluation.choices import Answer
from tunesmith.evaluation.intervals import wilson
from tunesmith.evaluation.question import CATEGORIES

AVERAGE = "Average"


def accuracy_of(answers: Iterable[Answer]) -> dict[str, Any] | None:
    """Right answers, questions, share and its 95 % interval; None where no right answer is published."""
    judged = [answer.is_correct for answer in answers if answer.is_correct is not None]
    if not judged:
        return None
    low, high = wilson(sum(judged), len(judged))
    share = sum(judged) / len(judged)
    return {
        "correct": sum(judged),
        "questions": len(judged),
        "accuracy": round(share, 6),
        "interval_95": [round(low, 6), round(high, 6)],
    }


def by_category(answers: Sequence[Answer]) -> dict[str, dict[str, Any] | None]:
    """Accuracy over all questions, then of each category that has questions."""
    others = sorted({answer.category for answer in answers} - set(CATEGORIES))
    found: dict[str, dict[str, Any] | None] = {AVERAGE: accuracy_of(answers)}
    for category in (*CATEGORIES, *others):
        own = [answer for answer in answers if answer.category == category]
        if own:
            found[category] = accuracy_of(own)
    return found


def log_lines(answers: Sequence[Answer]) -> list[str]:
    """The lines of results.log: a name and its accuracy in per cent."""
    return [
        f"{name:>15}: {100 * found['accuracy']:.2f}" if found else f"{name:>15}: -"
        for name, found in by_category(answers).items()
    ]


def table_lines(answers: Sequence[Answer]) -> list[str]:
    """What is shown: as results.log, with the interval and the number of questions."""
    lines = []
    for line, found in zip(log_lines(answers), by_category(answers).values(), strict=True):
        if found is None:
            lines.append(line)
            continue
        low, high = (100 * value for value in found["interval_95"])
        lines.append(f"{line:<24} 95 % interval {low:5.1f} to {high:5.1f}, {found['questions']} questions")
    return lines


def write_results(folder: Path, answers: Sequence[Answer], about: dict[str, Any]) -> None:
    """Writes results.json, results.log, summary.json and questions.parquet (log-probabilities as lists by letter).

    Args:
        folder: `save_dir`.
        answers: all of them, in order.
        about: what was asked and how, for summary.json.
    """
    predicted: dict[str, dict[str, str]] = {}
    subjects: dict[str, list[Answer]] = {}
    for answer in answers:
        predicted.setdefault(answer.subject, {})[str(answer.index)] = answer.predicted
        subjects.setdefault(answer.subject, []).append(answer)
    scores = {name: accuracy_of(own) for name, own in subjects.items()}
    write_json(folder / "results.json", predicted)
    write_atomic(folder / "results.log", "\n".join(log_lines(answers)) + "\n")
    write_json(folder / "summary.json", {**about, "categories": by_category(answers), "subjects": scores})
    rows = [answer.as_row() for answer in answers]
    write_parquet(folder / "questions.parquet", [row | {"logprobs": list(row["logprobs"].values())} for row in rows])


def write_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as a table."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    write_atomic(file, sink.getvalue().to_pybytes())
