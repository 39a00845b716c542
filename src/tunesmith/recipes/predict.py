"""`do_predict` with `predict_with_generate`: answers to a data set, row by row, and their scores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.metrics import CLASSIC, chosen_metrics
from tunesmith.core import env, log
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.journal import read_rows, row_line
from tunesmith.core.runs import Run, merge_results, write_atomic
from tunesmith.evaluation.metrics.base import Sample
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.recipes.answering import Answering
from tunesmith.recipes.model_digest import stored_digest

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.prompts import PromptRow
    from tunesmith.inference.engine import SamplingParams

ROWS_FILE = "generated_predictions.jsonl"
LOG_STEPS = 5
_logger = log.get_logger(__name__)


def run(config: RunConfig, *, model: Any = None, tokenizer: Any = None) -> dict[str, float]:
    """Predicts the evaluation rows and writes predictions, scores and the resolved configuration to `output_dir`.

    Args:
        config: data, generation and output keys.
        model: a model that is loaded already, such as the one just trained; loaded here when None.
        tokenizer: goes with `model`.

    Returns:
        The metrics, as in `predict_results.json`; empty on all processes but the first.
    """
    from tunesmith.data.pipeline import prepare_prompts
    from tunesmith.inference.opening import open_model
    from tunesmith.models.provenance import weights_digest
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    if env.rank() != 0:
        return {}
    tokenizer = tokenizer or load_tokenizer(config)
    rows = prepare_prompts(config, tokenizer, load_template_for(config, tokenizer))
    if not rows:
        raise DataError([Problem("no rows to predict", "eval_dataset", "name a data set, or set val_size")])
    was_training = model is not None and model.training
    opened = open_model(config, batch_size=config.per_device_eval_batch_size, model=model, tokenizer=tokenizer)
    model = opened.model
    folder = Path(config.output_dir or ".")
    answering = Answering(
        file=folder / ROWS_FILE,
        engine=opened.engine,
        form=opened.form,
        sampling=sampling_of(config),
        batch_size=config.per_device_eval_batch_size,
        adapter=opened.adapter,
        skip_special_tokens=config.skip_special_tokens,
    )
    write_atomic(folder / "training_args.yaml", config.to_yaml())
    weights = weights_digest(model) if model is not None else stored_digest(config)
    metrics = Prediction(folder, answering, scoreboard(config)).run(rows, seed=config.seed, weights=weights)
    if was_training:
        model.train()
    return metrics


def scoreboard(config: RunConfig) -> Callable[[], Scoreboard]:
    """Makes scoreboards of the metrics that a configuration names, or of the usual ones."""
    return lambda: Scoreboard(chosen_metrics(config), config.metric_options)


def sampling_of(config: RunConfig) -> SamplingParams:
    """How predictions are drawn."""
    from tunesmith.inference.engine import SamplingParams

    sampling = SamplingParams.from_config(config)
    return replace(sampling, num_beams=config.eval_num_beams or sampling.num_beams)


@dataclass(slots=True)
class Prediction:
    """Answers to rows and their scores, in the files of a run.

    Attributes:
        folder: `output_dir`.
        answering: writes the answers.
        board: makes a scoreboard.
    """

    folder: Path
    answering: Answering
    board: Callable[[], Scoreboard] = lambda: Scoreboard(CLASSIC)

    def run(self, rows: Sequence[PromptRow], *, seed: int, weights: str) -> dict[str, float]:
        """Writes what is missing of the predictions, then the scores of all of them."""
        started = time.monotonic()
        n_found = None
        so_far = self.board()
        self.answering.score = so_far.add
        with ProgressBar("predicting", len(rows), run=Run(self.folder)) as progress:
            for done in self.answering.write(rows, seed=seed, model=weights):
                progress.show(done, so_far.in_words())
                n_found = done if n_found is None else n_found
                if done > n_found:
                    self._log(done, len(rows), started)
        return self._finish(len(rows), len(rows) - (n_found or 0), time.monotonic() - started)

    def _log(self, written: int, total: int, started: float) -> None:
        """A line of trainer_log.jsonl every five batches and at the end."""
        batch_size = self.answering.batch_size
        if written % (batch_size * LOG_STEPS) and written != total:
            return
        steps, done = -(-total // batch_size), -(-written // batch_size)
        elapsed = time.monotonic() - started
        line = {
            "current_steps": done,
            "total_steps": steps,
            "percentage": round(100 * done / steps, 2),
            "elapsed_time": _clock(elapsed),
            "remaining_time": _clock(elapsed / done * (steps - done)),
        }
        with (self.folder / "trainer_log.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def _finish(self, total: int, n_new: int, runtime: float) -> dict[str, float]:
        metrics = scores(self.answering.file, self.board(), runtime, n_new, self.answering.batch_size)
        merge_results(self.folder, "predict_results.json", metrics)
        Run(self.folder).emit("predicted", rows=total, **metrics)
        _logger.info("%d predictions in %s: %s", total, self.answering.file, metrics)
        return metrics


def score_again(file: Path, board: Scoreboard) -> list[dict[str, Any]]:
    """Adds all rows of a file of answers to a scoreboard; scores beside them that differ are written anew."""
    rows = read_rows(file)
    scored = []
    for row in rows:
        sample = Sample(row["predict"], row["label"], row["prompt"], tuple(row.get("references", ())[1:]))
        scored.append(row | {"scores": board.add(sample)})
    if scored != rows:
        write_atomic(file, b"".join(map(row_line, scored)))
    return scored


def scores(file: Path, board: Scoreboard, runtime: float, n_new: int, batch_size: int) -> dict[str, float]:
    """What is reported of a file of answers: the metrics of all rows, and how fast the new ones came.

    Scores beside the rows that are of other metrics, or missing, are written anew.

    Args:
        file: with `prompt`, `predict` and `label` a line.
        board: empty.
        runtime: seconds that the new rows took.
        n_new: rows that were answered now.
        batch_size: rows of a step.
    """
    score_again(file, board)
    metrics = {f"predict_{name}": round(value, 4) for name, value in board.result().items()}
    metrics["predict_runtime"] = round(runtime, 4)
    metrics["predict_samples_per_second"] = round(n_new / runtime, 3)
    metrics["predict_steps_per_second"] = round(-(-n_new // batch_size) / runtime, 3)
    return metrics


def _clock(seconds: float) -> str:
    """`H:MM:SS`."""
    return str(timedelta(seconds=int(seconds)))
