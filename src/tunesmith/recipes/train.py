"""Training, top to bottom: configuration in; weights, log, plots and results out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.metrics import training_metrics
from tunesmith.config.result import ADAPTER_TYPES, merged_before
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import Interrupted, TrainingError
from tunesmith.core.lazy import lookup
from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run, merge_results, write_atomic

if TYPE_CHECKING:
    from tunesmith.evaluation.answers import AnswerScores

logger = get_logger(__name__)

_PLOTTED = {
    "dpo": ("rewards/accuracies", "rewards/margins"),
    "kto": ("rewards/chosen", "rewards/margins"),
    "ppo": ("reward", "kl"),
    "grpo": ("reward", "kl"),
}
"""Stage -> metrics that are drawn beside the loss."""
_SPEEDS = ("_runtime", "_per_second")
_PARTS_OF_LOSS = ("_sft_loss", "_odds_ratio_loss")


@dataclass(frozen=True)
class Session:
    """What a run holds between set-up and the last file.

    Attributes:
        config: the frozen configuration.
        run: the run directory.
        trainer: the StepTrainer.
        stop: the signal watcher.
        resume: the checkpoint that the run goes on from, or None.
    """

    config: RunConfig
    run: Run
    trainer: Any
    stop: Any
    resume: Path | None


def run(config: RunConfig) -> None:
    """Runs `do_train` and `do_eval` of one configuration.

    Raises:
        TunesmithError: the run cannot start or cannot go on; what was written stays.
        Interrupted: a signal stopped it after a checkpoint.
    """
    run = Run(Path(config.output_dir or "."))
    with run.working("train"):
        session = set_up(config, run)
        if config.do_train:
            fit(session)
        if session.trainer.eval_dataset is not None and (config.do_eval or config.eval_strategy != "no"):
            evaluate(session)
    _say_where(session)


def set_up(config: RunConfig, run: Run) -> Session:
    """Data, tokenizer, model and trainer; the supervision report is printed before any weight moves."""
    from tunesmith.data.pipeline import prepare
    from tunesmith.models.load import load_model
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer
    from tunesmith.training.resume import choose_checkpoint
    from tunesmith.training.trackers import check_trackers

    check_trackers(config.report_to)
    resume = choose_checkpoint(config) if config.do_train else None
    tokenizer = load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    prepared = prepare(config, tokenizer, template)
    model = load_model(config, tokenizer, trainable=True, resume=resume)
    return _make_session(config, run, resume, prepared, (model, tokenizer))


def _make_session(config: RunConfig, run: Run, resume: Path | None, prepared: Any, parts: tuple[Any, Any]) -> Session:
    from tunesmith.models.aids import Aids
    from tunesmith.models.dtype import evaluation_dtype, training_precision
    from tunesmith.models.forward import HiddenForward
    from tunesmith.models.load import base_folder, stored_dtype
    from tunesmith.objectives.base import OBJECTIVES, objective_name
    from tunesmith.training.alarms import Alarms, checks_of
    from tunesmith.training.arguments import training_arguments
    from tunesmith.training.budget import plan_memory
    from tunesmith.training.callbacks import EarlyStop, LogWriter, Pace, ProgressBar, RowsWatch, StopOnSignal
    from tunesmith.training.kept_reference import keep_reference
    from tunesmith.training.optimizers.table import optimizer_builder
    from tunesmith.training.reference import find_reference, is_kept
    from tunesmith.training.reinforce import find_reinforcement
    from tunesmith.training.trainer import StepTrainer

    model, tokenizer = parts
    autocast = training_precision(config, stored_dtype(base_folder(model))).autocast
    objective = lookup(OBJECTIVES, objective_name(config.stage, config.pref_loss)).build(config)
    forward = HiddenForward(model, Aids.of(config), reads_hidden=objective.needs_value_head)
    reference = find_reference(config, objective, forward, tokenizer)  # before memory is shared out: it may take some
    plan = plan_memory(config, model, forward, prepared, resume)
    stop = StopOnSignal()

    def tokens() -> tuple[int, int]:
        return trainer.tokens_seen, trainer.trained_tokens_seen

    with_tokens = bool(config.include_num_input_tokens_seen not in (False, "no"))
    pace = Pace(tokens)
    alarms = Alarms(run, checks_of(config.stage, config.pref_loss, config.pref_beta))
    callbacks: list[Any] = [
        LogWriter(run, pace, with_tokens),
        ProgressBar(pace),
        alarms,
        RowsWatch(prepared.train),
        stop,
    ]
    if config.early_stopping_steps:
        callbacks.append(EarlyStop(config.early_stopping_steps))
    trainer = StepTrainer(
        objective=objective,
        forward=forward,
        token_budget=plan.tokens,
        reference=reference,
        hidden_metrics=frozenset(() if config.compute_accuracy or config.stage not in ("pt", "sft") else ("accuracy",)),
        checkpoint_facts=plan.facts,
        model=model,
        args=training_arguments(config, autocast=autocast),
        train_dataset=prepared.train,
        eval_dataset=prepared.eval,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.make_optimizer = optimizer_builder(config)
    trainer.evaluation_dtype = evaluation_dtype(config)
    if is_kept(config, objective):
        keep_reference(trainer)
    trainer.reinforcement = find_reinforcement(config, objective, model, tokenizer, prepared.train)
    trainer.answer_scores = find_answer_scores(config, model, tokenizer, prepared.eval)
    return Session(config, run, trainer, stop, resume)


def find_answer_scores(config: RunConfig, model: Any, tokenizer: Any, rows: Any) -> AnswerScores | None:
    """What scores answers in evaluations; None where the configuration wants none.

    Args:
        config: `eval_metrics`, `predict_with_generate`, generation keys.
        model: in training; it answers, too.
        tokenizer: goes with it.
        rows: to evaluate on, by name with `eval_on_each_dataset`.

    Raises:
        TunesmithError: a metric that fails on the first row.
    """
    from tunesmith.evaluation.answers import AnswerScores
    from tunesmith.evaluation.metrics.scoreboard import Scoreboard
    from tunesmith.inference.opening import open_model
    from tunesmith.recipes.predict import sampling_of
    from tunesmith.training.random_state import random_state_kept

    names = training_metrics(config)
    if not names or rows is None or config.stage != "sft":
        return None
    was_training = model.training
    by_prefix = {f"eval_{name}": part.rows for name, part in rows.items()} if isinstance(rows, dict) else None
    with random_state_kept():  # a function of the user's is tried out, and may draw
        opened = open_model(config, batch_size=config.per_device_eval_batch_size, model=model, tokenizer=tokenizer)
        model.train(was_training)
        return AnswerScores(
            opened.engine,
            opened.form,
            sampling_of(config),
            by_prefix or {"eval": rows.rows},
            lambda: Scoreboard(names, config.metric_options),
            seed=config.seed,
            folder=Path(config.output_dir or "."),
        )


def fit(session: Session) -> None:
    """Trains, then writes weights and results; on a signal a checkpoint is written and Interrupted raised."""
    from tunesmith.data.growing import complete
    from tunesmith.training.resume import check_disk, report_resume, start_over
    from tunesmith.training.sampling import check_batches, raise_for_worker

    config, trainer = session.config, session.trainer
    write_atomic(
        session.run.folder / "training_args.yaml", config.replace(micro_batch_tokens=trainer.token_budget).to_yaml()
    )
    done = 0
    if session.resume:
        done = report_resume(session.resume, trainer)
    else:
        start_over(config)
    check_batches(trainer.args, trainer.train_dataset)
    check_disk(config, trainer)
    session.stop.install()
    try:
        result = trainer.train(resume_from_checkpoint=str(session.resume) if session.resume else None)
    except RuntimeError as error:
        raise_for_worker(error, trainer.train_dataset)
        raise
    finally:
        session.stop.restore()
    if session.stop.caught is not None and trainer.state.global_step < trainer.state.max_steps:
        session.run.emit("stopped", step=trainer.state.global_step, signal=session.stop.caught)
        raise Interrupted(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; checkpoint written. "
            + _how_to_go_on(config),
            session.stop.caught,
        )
    complete(trainer.train_dataset)
    if hasattr(trainer.train_dataset, "log_accounting"):
        trainer.train_dataset.log_accounting()
    save(session)
    if session.resume and trainer.state.global_step == done:
        logger.info("all its steps were made before; raise num_train_epochs or max_steps to train on")
        return
    metrics = {key: value for key, value in result.metrics.items() if key != "total_flos"}
    if config.include_effective_tokens_per_second:
        metrics["effective_tokens_per_sec"] = trainer.tokens_seen / metrics["train_runtime"]
    if config.include_num_input_tokens_seen not in (False, "no"):
        metrics["num_input_tokens_seen"] = trainer.state.num_input_tokens_seen
    merge_results(session.run.folder, "train_results.json", metrics)
    trainer.save_state()
    _plot(session)


def _how_to_go_on(config: RunConfig) -> str:
    if config.overwrite_output_dir:
        return "To go on from there, add resume_from_checkpoint=true to the same command (without it, it starts over)."
    return "The same command goes on from there."


def save(session: Session) -> None:
    """Writes the final weights, tokenizer, model card and provenance into output_dir; a crash leaves no half file."""
    from tunesmith.models.load import base_folder
    from tunesmith.models.pissa import convert
    from tunesmith.models.provenance import write_provenance
    from tunesmith.training.card import model_card
    from tunesmith.training.checkpoints import STAGING

    trainer, folder = session.trainer, session.run.folder
    if not trainer.args.should_save:
        return
    staged = folder / STAGING / "final"
    trainer.save_model(str(staged), _internal_call=True)
    write_atomic(staged / "README.md", model_card(session.config, trainer.state))
    if session.config.finetuning_type in ADAPTER_TYPES:
        write_provenance(
            staged,
            base_model=session.config.model_name_or_path or "",
            base_path=base_folder(trainer.model),
            template=session.config.template,
            stacked_adapters=[Path(name) for name in merged_before(session.config)],
            quantization=_quantization(session.config),
        )
    if session.config.pissa_convert:
        convert(staged)
    for path in sorted(staged.iterdir()):
        shutil.rmtree(folder / path.name, ignore_errors=True)  # a folder of an earlier run; files are replaced whole
        path.replace(folder / path.name)
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def _quantization(config: RunConfig) -> str | None:
    """How the base was held, for the note beside an adapter."""
    if config.quantization_bit is None:
        return None
    kind = (
        f", {config.quantization_type}" if config.quantization_bit == 4 and config.quantization_method == "bnb" else ""
    )
    return f"{config.quantization_bit} bits of {config.quantization_method}{kind}"


def evaluate(session: Session) -> None:
    """Evaluates once more with the final weights and writes eval_results.json."""
    trainer = session.trainer
    metrics = trainer.evaluate()
    if not metrics:
        raise TrainingError("do_eval: the evaluation set is empty")
    if trainer.state.epoch is not None:
        metrics["epoch"] = trainer.state.epoch
    merge_results(session.run.folder, "eval_results.json", metrics)
    if session.config.do_train:
        trainer.save_state()
        _plot(session)


def _plot(session: Session) -> None:
    """training_<metric>.png for the loss, eval losses, accuracies and rewards, where `plot_loss` asks for it."""
    from tunesmith.training.plots import plot_metric

    if not session.config.plot_loss or not session.trainer.args.should_save:
        return
    history = session.trainer.state.log_history
    names = {"loss", *_PLOTTED.get(session.config.stage, ())} | {
        key
        for entry in history
        for key in entry
        if key.startswith("eval_") and key.endswith(("_loss", "_accuracy")) and not key.endswith(_PARTS_OF_LOSS)
    }
    if session.trainer.answer_scores is not None:
        names |= {key for entry in history for key in entry if key.startswith("eval_") and not key.endswith(_SPEEDS)}
    for name in sorted(names):
        plot_metric(history, name, session.run.folder)


def _say_where(session: Session) -> None:
    folder = session.run.folder

    logger.info("done: %s", folder)
    for name, what in (
        ("adapter_model.safetensors", "adapter"),
        ("training_loss.png", "loss curve"),
        ("trainer_log.jsonl", "log"),
        ("all_results.json", "results"),
    ):
        if (folder / name).is_file():
            logger.info("  %-10s %s", what, folder / name)
