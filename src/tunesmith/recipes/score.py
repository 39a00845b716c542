"""`do_predict` of stage rm: scores of the answers of evaluation pairs, and how often the chosen one has the higher."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import env, log
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.runs import Run, merge_results, write_atomic

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

ROWS_FILE = "generated_predictions.jsonl"
_logger = log.get_logger(__name__)


def run(config: RunConfig) -> dict[str, float]:
    """Scores the evaluation pairs and writes scores and results to `output_dir`.

    Args:
        config: names a reward model; data as in evaluation.

    Returns:
        The metrics, as in `predict_results.json`; empty on all processes but the first.

    Raises:
        DataError: there are no pairs.
        ModelError: the model has no value head.
    """
    from tunesmith.data.pipeline import prepare
    from tunesmith.models.load import load_model
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer
    from tunesmith.models.value_head import score_sequences

    if env.rank() != 0:
        return {}
    tokenizer = load_tokenizer(config)
    prepared = prepare(config.replace(do_train=False), tokenizer, load_template_for(config, tokenizer))
    sets = prepared.eval if isinstance(prepared.eval, dict) else {"": prepared.eval}
    pairs = [rows.rows[index].sequences() for rows in sets.values() if rows is not None for index in range(len(rows))]
    if not pairs:
        raise DataError([Problem("no pairs to score", "eval_dataset", "name a data set, or set val_size")])
    model = load_model(config, tokenizer, trainable=False)
    started = time.monotonic()
    scores = score_sequences(model, [ids for pair in pairs for ids, _ in pair])
    found = list(zip(scores[::2], scores[1::2], strict=True))
    return _write(Path(config.output_dir or "."), found, time.monotonic() - started)


def _write(folder: Path, scores: list[tuple[float, float]], runtime: float) -> dict[str, float]:
    lines = [json.dumps({"chosen": round(chosen, 2), "rejected": round(rejected, 2)}) for chosen, rejected in scores]
    write_atomic(folder / ROWS_FILE, "\n".join(lines) + "\n")
    margins = [chosen - rejected for chosen, rejected in scores]
    metrics: dict[str, Any] = {
        "predict_accuracy": sum(margin > 0 for margin in margins) / len(margins),
        "predict_loss": sum(math.log1p(math.exp(-abs(m))) + max(-m, 0.0) for m in margins) / len(margins),
        "predict_runtime": round(runtime, 4),
        "predict_samples_per_second": round(len(margins) / max(runtime, 1e-9), 3),
    }
    merge_results(folder, "predict_results.json", metrics)
    Run(folder).emit("predicted", rows=len(scores), **metrics)
    _logger.info("%d pairs scored in %s: %s", len(scores), folder / ROWS_FILE, metrics)
    return metrics
