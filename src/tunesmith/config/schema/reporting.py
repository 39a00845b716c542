"""Keys of logging, evaluation while training, saving, the hub and the profiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import DATA, Group, key

_HUB = "sending models to the hub"
_TRACKERS = (
    "none",
    "all",
    "tensorboard",
    "wandb",
    "mlflow",
    "swanlab",
    "trackio",
    "azure_ml",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "kubeflow",
    "neptune",
)
_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")


_ADDED_UP = "Losses and metrics are added up at once: memory does not grow with the evaluation set."


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Logging(Group):
    """What is told and where."""

    TITLE: ClassVar[str] = "logging"
    NATIVE: ClassVar[bool] = True

    logging_strategy: str = key("steps", "When metrics are logged.", choices=("no", "steps", "epoch"))
    logging_steps: float = key(500, "Steps between two log lines; below 1 a share of all steps.", gt=0)
    logging_first_step: bool = key(False, "Log the first step, too.")
    logging_nan_inf_filter: bool = key(
        True, "Leave losses that are no numbers out of logged means.", note="Tunesmith never hides them.", native=False
    )
    logging_dir: str | None = key(
        None,
        "Folder of TensorBoard's files.",
        native=False,
        not_yet="a log folder elsewhere; TensorBoard's files are in runs/ of output_dir",
    )
    log_on_each_node: bool = key(True, "Log on each machine, not on the first alone.")
    log_level: str = key(
        "passive",
        "How much transformers tells.",
        choices=_LEVELS,
        note="Errors only; Tunesmith tells the rest itself (TUNESMITH_VERBOSITY).",
        native=False,
    )
    log_level_replica: str = key("warning", "How much it tells in the other processes.", choices=_LEVELS)
    disable_tqdm: bool | None = key(
        None, "Show no bar of transformers.", note="Tunesmith shows its own instead, whatever it says.", native=False
    )
    include_num_input_tokens_seen: str = key(
        "no",
        "Count tokens: no, all, or non_padding.",
        choices=("no", "all", "non_padding"),
        value_names={"true": "all", "false": "no"},
    )
    report_to: tuple[str, ...] = key(
        ("none",), "Trackers that get the metrics; none, or all that are installed.", choices=_TRACKERS
    )
    run_name: str | None = key(None, "Name of the run at the trackers.")
    project: str = key("huggingface", "Project at trackio.")
    trackio_space_id: str | None = key(None, "Space of the hub that trackio shows the run in.")
    trackio_bucket_id: str | None = key(None, "Bucket of the hub that trackio keeps the run in.")
    trackio_static_space_id: str | bool | None = key(None, "Space for a fixed copy of the run; false: none.")
    debug: str = key("", "transformers' debugging aids, such as underflow_overflow.")
    skip_memory_metrics: bool = key(True, "Do not measure memory.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Evaluating(Group):
    """Evaluation while training, and prediction."""

    TITLE: ClassVar[str] = "evaluation and prediction"
    NATIVE: ClassVar[bool] = True

    eval_strategy: str = key("no", "When to evaluate while training.", choices=("no", "steps", "epoch"))
    eval_steps: float | None = key(
        None, "Steps between two evaluations; below 1 a share of all; default: `logging_steps`.", gt=0
    )
    eval_delay: float = key(0, "Epochs or steps before the first evaluation.", ge=0)
    eval_on_start: bool = key(False, "Evaluate before the first step, too.")
    per_device_eval_batch_size: int = key(8, "Rows at a time in evaluation and prediction.", ge=1)
    prediction_loss_only: bool = key(
        False,
        "Compute nothing but the loss in evaluation.",
        note="It turns off the answers of `predict_with_generate`; nothing else is computed unasked.",
    )
    eval_accumulation_steps: int | None = key(
        None,
        "Batches after which results move to the CPU.",
        ge=1,
        note=_ADDED_UP,
    )
    eval_do_concat_batches: bool = key(
        True,
        "Join the results of batches.",
        note=_ADDED_UP,
    )
    eval_use_gather_object: bool = key(
        False,
        "Gather results as objects from all processes.",
        note=_ADDED_UP,
    )
    include_for_metrics: tuple[str, ...] = key(
        (), "What a metric function is given beside the answers.", note="The built-in metrics need nothing more."
    )
    batch_eval_metrics: bool = key(
        False, "Compute metrics batch by batch.", note="Every metric is added up row by row, whatever it says."
    )
    predict_with_generate: bool = key(
        False, "Write answers and score them: in prediction, and in evaluation while training.", native=False
    )
    eval_num_beams: int | None = key(
        None, "Number of beams in prediction; default: `num_beams`.", ge=1, native=False, commands=DATA
    )
    generation_max_length: int | None = key(
        None,
        "Longest prompt plus answer in prediction, in tokens.",
        ge=1,
        native=False,
        not_yet="a limit on prompt plus answer; max_new_tokens limits the answer",
    )
    generation_num_beams: int | None = key(
        None, "Number of beams in prediction.", ge=1, native=False, not_yet="this name; eval_num_beams does the same"
    )
    generation_config: str | None = key(
        None, "File of generation settings for prediction.", native=False, not_yet="generation settings from a file"
    )
    sortish_sampler: bool = key(
        False, "Roughly sort rows by length.", native=False, note="Without padding there is nothing to gain; no effect."
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Saving(Group):
    """Checkpoints."""

    TITLE: ClassVar[str] = "checkpoints"
    NATIVE: ClassVar[bool] = True

    save_strategy: str = key("steps", "When to write a checkpoint.", choices=("no", "steps", "epoch", "best"))
    save_steps: float = key(500, "Steps between two checkpoints; below 1 a share of all steps.", gt=0)
    save_total_limit: int | None = key(None, "Keep this many newest checkpoints.", ge=1)
    save_only_model: bool = key(False, "Write weights only; such a checkpoint cannot be resumed from.")
    save_on_each_node: bool = key(False, "Write on each machine, not on the first alone.")
    load_best_model_at_end: bool = key(False, "End with the best checkpoint's weights instead of the last.")
    metric_for_best_model: str | None = key(None, "What best is measured by; default: the evaluation loss.")
    greater_is_better: bool | None = key(None, "Whether more of it is better; default: not for losses.")
    enable_jit_checkpoint: bool = key(
        False,
        "Write a checkpoint when the machine is about to be taken away.",
        not_yet="transformers' just-in-time checkpoints; Tunesmith writes one on SIGTERM without it",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Hub(Group):
    """Sending weights away."""

    TITLE: ClassVar[str] = "hub"
    NOT_YET: ClassVar[str] = _HUB
    NATIVE: ClassVar[bool] = True

    push_to_hub: bool = key(False, "Send the weights to the hub.")
    hub_model_id: str | None = key(None, "Repository they are sent to.")
    hub_token: str | None = key(None, "Access token for it.", secret=True)
    hub_private_repo: bool | None = key(None, "Make the repository private.")
    hub_strategy: str = key(
        "every_save", "What is sent when.", choices=("end", "every_save", "checkpoint", "all_checkpoints")
    )
    hub_always_push: bool = key(False, "Send even while the last sending is not done.")
    hub_revision: str | None = key(None, "Branch they are sent to.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Profiler(Group):
    """torch's profiler."""

    TITLE: ClassVar[str] = "profiler"
    NOT_YET: ClassVar[str] = "the profiler"

    enable_torch_profiler: bool = key(False, "Record where time goes.")
    profiler_output_dir: str | None = key(None, "Folder for the records; default: profiler/ in `output_dir`.")
    profiler_wait_steps: int = key(1, "Steps before each recording.", ge=0)
    profiler_warmup_steps: int = key(1, "Steps recorded and thrown away.", ge=0)
    profiler_active_steps: int = key(1, "Steps recorded.", ge=1)
    profiler_repeat: int = key(1, "Number of recordings; 0: until the end.", ge=0)
    profiler_record_shapes: bool = key(True, "Record shapes.")
    profiler_profile_memory: bool = key(True, "Record memory.")
    profiler_with_stack: bool = key(True, "Record where calls come from.")
    profile_modules: str | None = key(None, "Modules to record.")
