"""Training that begins before its rows are tokenized: when that can be, and what must be done before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core import env
from tunesmith.core.log import get_logger
from tunesmith.data.dataset import Dataset, Job, n_processes, run_jobs
from tunesmith.data.flat import pack_arrays
from tunesmith.data.growing import Filling, GrowingRows
from tunesmith.data.items import eval_rows_of, evaluation_of, stop_on_rejects, supervision_report
from tunesmith.data.mix import split_and_mix
from tunesmith.data.parts import Parts, open_part
from tunesmith.data.report import SupervisionReport, example_lines, log_report
from tunesmith.data.rows import RowsBuilder, TokenizedRows, TrainRows, concat_rows
from tunesmith.data.workers import available_cores, can_fork

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.tokenize import Encoder

logger = get_logger(__name__)

GROWING_BYTES = 16 << 20
"""Size of the files that are still to be tokenized from which training does not wait for them: some seconds' work."""
_LOOK_AHEAD = 20
_BATCH = 1000


def is_worth_growing(config: RunConfig, jobs: Sequence[Job]) -> bool:
    """Whether training is to begin before its rows are tokenized; where it must wait for many, that is said."""
    missing = [job for job in jobs if not job.is_done]
    if not missing or sum(job.n_bytes for job in missing) < GROWING_BYTES:
        return False
    reason = _reason_to_wait(config)
    if reason:
        logger.info("the first step waits until all rows are tokenized: %s", reason)
    return not reason


def _reason_to_wait(config: RunConfig) -> str:
    """What needs all rows before the first step; empty where nothing does."""
    reasons = {
        f"stage {config.stage} chooses its items by them": config.stage != "sft",
        "packing needs the length of each": bool(config.packing or config.neat_packing),
        "train_sampling_strategy needs the length of each": config.train_sampling_strategy == "group_by_length",
        "the order depends on which of them are left out (skip_bad_rows)": config.skip_bad_rows,
        "the order depends on which of them are left out (allow_untrained_rows)": config.allow_untrained_rows,
        "tokenized_path keeps them": config.tokenized_path is not None,
        "several processes train": env.world_size() > 1,
        "output_dir holds an earlier run, which a bad row must not cost": _holds_checkpoints(config),
        "this system cannot fork processes": not can_fork(),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _holds_checkpoints(config: RunConfig) -> bool:
    return any(Path(config.output_dir or ".").glob("checkpoint-*"))


def prepare_growing(
    config: RunConfig, encoder: Encoder, train_jobs: list[Job], eval_jobs: list[Job]
) -> tuple[GrowingRows, TrainRows | dict[str, TrainRows] | None, SupervisionReport]:
    """Rows to train on that are tokenized from now on; rows to evaluate on, which are there; and the report so far.

    Raises:
        DataError: a row that is needed at once cannot be used; then all are waited for, and all bad ones named.
    """
    parts = Parts([open_part(job.spec, config, encoder) for job in train_jobs])
    filling = Filling(train_jobs, parts, n_processes(config, available_cores() - 1))
    order, held = split_and_mix(parts.sources, parts.sizes, parts.names, config)
    eval_sets = run_jobs(eval_jobs)
    eval_reports = [report for _, report in eval_sets]
    held_rows = _collect(parts, held) if config.val_size else None
    evaluation, eval_rows = evaluation_of(config, encoder, eval_rows_of(config, eval_sets, held_rows))

    def finish(found: list[Dataset]) -> TrainRows:
        reports = [*(report for _, report in found), *eval_reports]
        stop_on_rejects(reports, config)
        rows = TrainRows(concat_rows([part for part, _ in found]).take(order))
        report = supervision_report(reports, rows, eval_rows)
        report.example = None  # it was shown before the first step
        log_report(report, encoder.tokenizer.decode, logger)
        return rows

    train = GrowingRows(parts, order, filling, finish, encoder.cutoff_len)
    first = parts.tokenize(dict.fromkeys(map(int, order[:_LOOK_AHEAD])), parts.new_reports())
    is_short = len(first) < len(set(order[:_LOOK_AHEAD].tolist())) or len(held_rows or ()) < len(held)
    if is_short or any(report.rejected for report in eval_reports):
        train.complete()
    if not train.is_complete:
        sizes = ", ".join(f"{name} {size:,}" for name, size in zip(parts.names, parts.sizes, strict=True))
        logger.info(
            "%s rows (%s): training begins while they are tokenized (%d processes); the report on all of them follows, "
            "and no checkpoint is written before it",
            f"{len(parts):,}",
            sizes,
            filling.n_processes,
        )
        logger.info("\n".join(example_lines(first[int(order[0])], encoder.tokenizer.decode)))
    return train, evaluation, SupervisionReport(eval_reports, train_rows=len(train), eval_rows=eval_rows)


def _collect(parts: Parts, numbers: Sequence[int]) -> TokenizedRows:
    """The usable rows among `numbers`, in that order."""
    builder = RowsBuilder()
    for start in range(0, len(numbers), _BATCH):
        found = parts.tokenize(numbers[start : start + _BATCH], parts.new_reports())
        builder.add(pack_arrays(found.values()))
    return builder.build()
