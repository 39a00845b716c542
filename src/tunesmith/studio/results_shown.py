"""Results of a prediction or a benchmark as the page shows them: numbers, samples a page at a time. No Gradio here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.evaluation.run_scores import ScoredSample, read_run
from tunesmith.studio.markup import Html, long_text, note, page_part, table
from tunesmith.studio.words import say

PAGE = 10
"""Samples of a page."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run's folder holds of results.

    Attributes:
        numbers: of the whole run, by name.
        samples: predictions or questions, in the order of the file.
    """

    numbers: dict[str, float]
    samples: Sequence[ScoredSample]

    @property
    def n_pages(self) -> int:
        """Pages of samples, at least one."""
        return max(1, -(-len(self.samples) // PAGE))


def read_results(folder: Path) -> Results:
    """Everything of a run that is shown.

    Raises:
        TunesmithError: the folder holds no results.
    """
    run = read_run(folder, folder.name)
    return Results(run.results, [sample for found in run.samples.values() for sample in found.values()])


def numbers_page(results: Results, language: str = "en") -> str:
    """The table of results."""
    if not results.numbers:
        return page_part(note(say("evaluate.no_numbers", language), "quiet"))
    heads = (say("evaluate.metric", language), say("evaluate.value", language))
    return page_part(table(heads, [(name, f"{value:.6g}") for name, value in results.numbers.items()], numbers_from=1))


def samples_page(results: Results, page: int, language: str = "en") -> str:
    """One page of samples.

    Args:
        results: of a run.
        page: from 1; what is beyond the ends shows the nearest one.
        language: of the heads.
    """
    if not results.samples:
        return page_part(note(say("evaluate.no_samples", language), "quiet"))
    page = min(max(1, page), results.n_pages)
    first = (page - 1) * PAGE
    shown = results.samples[first : first + PAGE]
    names = list(dict.fromkeys(name for sample in shown for name in sample.scores))
    heads = ["#", *(say(f"evaluate.{name}", language) for name in ("prompt", "label", "predict")), *names]
    rows = [[first + place, *_cells(sample, names)] for place, sample in enumerate(shown, start=1)]
    return page_part(table(heads, rows, numbers_from=4))


def _cells(sample: ScoredSample, names: Sequence[str]) -> list[Html | str]:
    scores = [f"{sample.scores[name]:.4g}" if name in sample.scores else "" for name in names]
    return [long_text(sample.prompt), long_text(sample.label), long_text(sample.predict), *scores]
