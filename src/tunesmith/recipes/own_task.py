"""`task: path/to/task.yaml` that is answered in free text: prompts in, answers with scores and results out."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.journal import refuse_others
from tunesmith.core.runs import Run, write_atomic, write_json
from tunesmith.core.types import Message
from tunesmith.data.prompts import PromptRow
from tunesmith.evaluation.intervals import paired_bootstrap
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.evaluation.prompts import lead_of, warn_of_few_examples
from tunesmith.evaluation.results import write_parquet
from tunesmith.evaluation.task_rows import PromptItem, read_prompts
from tunesmith.recipes.answering import Answering
from tunesmith.recipes.predict import ROWS_FILE, score_again

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.evaluation.task_file import TaskFile
    from tunesmith.inference.chat import ChatFormat


def generate(config: RunConfig, task: TaskFile, folder: Path | None) -> dict[str, Any]:
    """Answers the prompts of a task and scores them.

    Args:
        config: model, template, `n_shot`, `seed`, `batch_size`.
        task: of kind generation.
        folder: takes answers and results; None: they are only returned.

    Returns:
        Metric -> its value, rows, and the 95 % interval where the value is a mean of rows.

    Raises:
        TunesmithError: rows or the model cannot be used, or the folder holds other results.
    """
    from tunesmith.inference.engine import SamplingParams
    from tunesmith.inference.opening import open_model
    from tunesmith.models.provenance import weights_digest

    items, examples = read_prompts(task)
    warn_of_few_examples(config.n_shot, {str(task.examples): len(examples)})
    opened = open_model(config, batch_size=config.batch_size)
    rows = write_rows(opened.form, task, items, draw(examples, config.n_shot, config.seed), opened.engine.context)

    def board() -> Scoreboard:
        return Scoreboard(task.settings.metrics, task.settings.metric_options)

    with tempfile.TemporaryDirectory() as elsewhere:
        answering = Answering(
            file=(folder or Path(elsewhere)) / ROWS_FILE,
            engine=opened.engine,
            form=opened.form,
            sampling=SamplingParams.from_config(task.settings),
            batch_size=config.batch_size,
            adapter=opened.adapter,
        )
        refuse_others(answering.file, answering.fingerprint(rows, config.seed, weights_digest(opened.model)))
        score = board()
        answering.score = score.add
        with ProgressBar("answers", len(rows), run=Run(folder) if folder else None) as bar:
            for done in answering.write(rows, seed=config.seed, model=weights_digest(opened.model)):
                bar.show(done, score.in_words())
        whole = board()
        answered = score_again(answering.file, whole)
    found = with_intervals(whole.result(), answered)
    if folder is not None:
        write_json(folder / "results.json", {str(place): row["predict"] for place, row in enumerate(answered)})
        write_atomic(folder / "results.log", "\n".join(table_lines(found, intervals=False)) + "\n")
        write_parquet(folder / "generated_predictions.parquet", answered)
    return found


def draw(examples: Sequence[PromptItem], n_shot: int, seed: int) -> list[PromptItem]:
    """The worked examples, the same before every prompt."""
    return random.Random(seed).sample(list(examples), min(n_shot, len(examples)))


def write_rows(
    form: ChatFormat, task: TaskFile, items: Sequence[PromptItem], examples: Sequence[PromptItem], context: int | None
) -> list[PromptRow]:
    """Prompts as the model reads them; where one is longer than the context, it gets fewer examples.

    Raises:
        DataError: a prompt that does not fit even alone.
    """
    rows = []
    lead = lead_of(form)
    for item in items:
        for n_kept in range(len(examples), -1, -1):
            messages = []
            for example in examples[:n_kept]:
                blank = "" if example.prompt[-1:].isspace() else lead
                messages += [Message("user", example.prompt), Message("assistant", blank + example.references[0])]
            messages.append(Message("user", item.prompt))
            if task.introduction:
                messages[0] = Message("user", task.introduction + messages[0].content)
            ids = form.prompt_ids(messages)
            if context is None or len(ids) < context:
                break
        else:
            what = f"the prompt has {len(ids)} tokens, the model's context holds {context}"
            raise DataError([Problem(what, str(item.source))])
        text = form.tokenizer.decode(ids)
        others = item.references[1:]
        rows.append(PromptRow(ids, text, item.references[0], item.source, asked=item.prompt, other_labels=others))
    return rows


def with_intervals(result: dict[str, float], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each metric with its 95 % interval (bootstrap over rows), where its value is the mean of the rows' scores."""
    found: dict[str, Any] = {}
    for name, value in result.items():
        own = [row["scores"].get(name) for row in rows]
        entry: dict[str, Any] = {"value": round(value, 6), "rows": len(rows)}
        numbers = [float(score) for score in own if isinstance(score, int | float)]
        if len(numbers) == len(rows) and abs(sum(numbers) / len(numbers) - value) < 1e-3:
            spread = paired_bootstrap([0.0] * len(numbers), numbers)
            entry["interval_95"] = [round(spread.low, 6), round(spread.high, 6)]
        found[name] = entry
    return found


def table_lines(found: dict[str, Any], *, intervals: bool = True) -> list[str]:
    """A line a metric."""
    lines = []
    for name, entry in found.items():
        line = f"{name:>15}: {entry['value']:.4f}"
        if intervals and "interval_95" in entry:
            low, high = entry["interval_95"]
            line = f"{line:<26} 95 % interval {low:.4f} to {high:.4f}, {entry['rows']} rows"
        lines.append(line)
    return lines
