"""`tunesmith infer`: a data set in, a file of answers out, beside no run; scores where they are asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.journal import state_file
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_json
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.recipes.answering import Answering
from tunesmith.recipes.model_digest import stored_digest
from tunesmith.recipes.predict import scoreboard, scores

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.prompts import PromptRow

BATCH_SIZE = 16
"""Rows at a time where the configuration does not say."""
_logger = get_logger(__name__)


def run(config: RunConfig) -> None:
    """Answers every row of the data set into `save_name`; goes on where a run of the same kind was ended.

    Raises:
        TunesmithError: the model, the data or a file cannot be used.
    """
    from tunesmith.inference.engine import SamplingParams
    from tunesmith.inference.opening import open_model
    from tunesmith.models.tokenizer import load_tokenizer

    began = time.monotonic()
    file = Path(config.save_name).expanduser()
    _check_free(file)
    tokenizer = load_tokenizer(config)
    rows = _rows(config, tokenizer)
    batch_size = config.batch_size if "batch_size" in config.explicit else BATCH_SIZE
    opened = open_model(config, batch_size=batch_size, tokenizer=tokenizer)
    answering = Answering(
        file=file,
        engine=opened.engine,
        form=opened.form,
        sampling=SamplingParams.from_config(config),
        batch_size=batch_size,
        adapter=opened.adapter,
        skip_special_tokens=config.skip_special_tokens,
        score=scoreboard(config)().add if config.metrics else None,
    )
    prepared = time.monotonic() - began
    found = None
    started = time.monotonic()
    with ProgressBar("predicting", len(rows)) as progress:
        for done in answering.write(rows, seed=config.seed, model=stored_digest(config)):
            progress.show(done)
            found = done if found is None else found
    _logger.info("%d answers are in %s", len(rows), file)
    if config.matrix_save_name:
        metrics = scores(file, scoreboard(config)(), time.monotonic() - started, len(rows) - (found or 0), batch_size)
        metrics["predict_model_preparation_time"] = round(prepared, 4)
        write_json(Path(config.matrix_save_name).expanduser(), metrics)
        _logger.info("%s: %s", config.matrix_save_name, metrics)


def _rows(config: RunConfig, tokenizer: object) -> list[PromptRow]:
    from tunesmith.data.pipeline import prepare_prompts
    from tunesmith.models.tokenizer import load_template_for

    # How the model was trained (`stage`) does not matter here: rows are conversations to answer.
    rows = prepare_prompts(config.replace(stage="sft"), tokenizer, load_template_for(config, tokenizer))
    if not rows:
        raise DataError([Problem("no rows to answer", "dataset", "every data set is empty")])
    return rows


def _check_free(file: Path) -> None:
    """Refuses to write over what this command did not write.

    Raises:
        DataError: there is such a file.
    """
    if file.exists() and file.stat().st_size and not state_file(file).exists():
        fix = "name another file, or move that one away"
        raise DataError([Problem(f"{file} is there already and is not of this command", "save_name", fix)])
