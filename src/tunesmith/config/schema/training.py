"""Keys of the training loop, optimizer, precision, loaders, processes; most are of transformers' TrainingArguments."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import DATA, MAKING, MODEL, Group, key

MOST_SEED = 2**32 - 1
"""What numpy takes."""
_COMPILE = "compiling the model with torch.compile"
_NO_WRAPPER = "It changes nothing: gradients are summed in one pass, without a wrapper around the model."
_SHARDED = "sharded training with DeepSpeed or FSDP"

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
_LOW_RANK = (
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "apollo_adamw",
    "apollo_adamw_layerwise",
)
_FUSED_BACKWARD = ("lomo", "adalomo")
OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adamw_apex_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "stable_adamw",
    *_LOW_RANK,
    *_FUSED_BACKWARD,
)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Loop(Group):
    """What is done, how long, in which order."""

    TITLE: ClassVar[str] = "run"
    NATIVE: ClassVar[bool] = True

    do_train: bool = key(False, "Train.", native=False)
    do_eval: bool = key(False, "Evaluate the loss; any `eval_strategy` but no turns it on.", native=False)
    do_predict: bool = key(False, "Write answers to the evaluation data.", native=False)
    output_dir: str | None = key(
        None,
        "Folder for weights, checkpoints, logs and results.",
        commands=("train", "expand", *MAKING),
        note="Default of data make and data dialogue: output; of data split: saveChunk.",
    )
    overwrite_output_dir: bool = key(
        False,
        "Start anew although `output_dir` holds a run already.",
        native=False,
        commands=("train", "expand"),
    )
    resume_from_checkpoint: str | bool | None = key(
        None,
        "Checkpoint to go on from: a folder, or true for the newest in `output_dir`.",
        note="An `output_dir` with checkpoints goes on from the newest by itself; `overwrite_output_dir` starts anew.",
        native=False,
    )
    num_train_epochs: float = key(3.0, "Times the data is gone through.", gt=0)
    max_steps: int = key(
        -1, "Stop after this many optimizer steps, whatever `num_train_epochs` says; -1: no limit.", ge=-1
    )
    per_device_train_batch_size: int = key(
        8,
        "Rows of a step on each device, times `gradient_accumulation_steps`.",
        ge=1,
        note="A step is cut into pieces that fit the memory; only the product of the two keys matters.",
    )
    gradient_accumulation_steps: int = key(1, "Batches that make one optimizer step.", ge=1)
    average_tokens_across_devices: bool = key(
        True, "Divide the loss by the tokens of all devices.", note="Tunesmith always does.", native=False
    )
    seed: int = key(42, "Seed of everything random.", ge=0, le=MOST_SEED, commands=MODEL)
    data_seed: int | None = key(None, "Seed of the order of rows; default: `seed`.", ge=0, le=MOST_SEED, commands=DATA)
    full_determinism: bool = key(False, "Use slower kernels that give the same bits each time.")
    train_sampling_strategy: str = key(
        "random",
        "Order of rows: random, sequential, or rows of like length together.",
        choices=("random", "sequential", "group_by_length"),
    )
    ignore_data_skip: bool = key(False, "On resuming begin the data anew instead of going on where it stopped.")
    restore_callback_states_from_checkpoint: bool = key(False, "On resuming restore the callbacks' states, too.")
    auto_find_batch_size: bool = key(
        False,
        "Shrink the batch until it fits the memory.",
        not_yet="searching the batch size; Tunesmith fits micro-batches to the memory without it",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Optimizer(Group):
    """How weights are updated."""

    TITLE: ClassVar[str] = "optimizer"
    NATIVE: ClassVar[bool] = True

    learning_rate: float = key(5e-05, "Highest learning rate.", ge=0)
    lr_scheduler_type: str = key("linear", "Course of the learning rate.", choices=SCHEDULERS)
    lr_scheduler_kwargs: dict[str, Any] | None = key(None, "Settings of the scheduler, such as min_lr.")
    warmup_steps: float = key(0, "Steps in which the learning rate rises; below 1 a share of all steps.", ge=0)
    warmup_ratio: float | None = key(
        None, "Share of all steps in which the learning rate rises.", ge=0, le=1, native=False
    )
    optim: str = key(
        "adamw_torch_fused",
        "Optimizer.",
        choices=OPTIMIZERS,
        not_yet_values={
            "adamw_apex_fused": "apex, which transformers dropped; adamw_torch_fused does the same",
        },
    )
    optim_args: str | None = key(None, "Settings of the optimizer, as name=value,name=value.")
    optim_target_modules: tuple[str, ...] = key(
        (), "Modules that galore_* and apollo_* work on: names, one regular expression, or all-linear."
    )
    weight_decay: float = key(0.0, "Pull of the weights towards 0.", ge=0)
    adam_beta1: float = key(0.9, "Adam's decay of the mean gradient.", ge=0, lt=1)
    adam_beta2: float = key(0.999, "Adam's decay of the squared gradient.", ge=0, lt=1)
    adam_epsilon: float = key(1e-08, "Adam's guard against division by 0.", gt=0)
    max_grad_norm: float = key(1.0, "Longer gradients are shortened to this length; 0: never.", ge=0)
    neftune_noise_alpha: float | None = key(None, "Noise on the embeddings while training (NEFTune); 5 is usual.", gt=0)
    label_smoothing_factor: float = key(0.0, "Share of probability spread over all tokens.", ge=0, lt=1)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Precision(Group):
    """Number formats, kernels, compilation."""

    TITLE: ClassVar[str] = "precision and kernels"
    NATIVE: ClassVar[bool] = True

    bf16: bool = key(False, "Compute in bfloat16 with float32 weights.")
    fp16: bool = key(False, "Compute in float16 with float32 weights.")
    bf16_full_eval: bool = key(False, "Compute in bfloat16 while evaluating.", native=False)
    fp16_full_eval: bool = key(False, "Compute in float16 while evaluating.", native=False)
    tf32: bool | None = key(None, "Allow TF32 on newer NVIDIA GPUs.")
    gradient_checkpointing: bool = key(
        False,
        "Compute activations a second time in the backward pass to save memory.",
        aliases=("activation_checkpointing",),
        note="Off, Tunesmith still turns it on by itself where memory would not do; "
        "`disable_gradient_checkpointing` forbids that.",
        native=False,
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = key(
        None,
        "Settings of gradient checkpointing.",
        aliases=("activation_checkpointing_kwargs",),
        note="`use_reentrant`, `preserve_rng_state`, `determinism_check`, as torch has them.",
        native=False,
    )
    use_cache: bool = key(
        False, "Keep past keys and values while training.", note="Training never needs them.", native=False
    )
    torch_empty_cache_steps: int | None = key(None, "Give unused GPU memory back every so many steps.", ge=1)
    torch_compile: bool = key(False, "Compile the model.", not_yet=_COMPILE)
    torch_compile_backend: str | None = key(None, "Compiler.", not_yet=_COMPILE)
    torch_compile_mode: str | None = key(None, "Mode of the compiler.", not_yet=_COMPILE)
    use_liger_kernel: bool = key(
        False, "Fused kernels of the liger-kernel package.", note="The same as `enable_liger_kernel`.", native=False
    )
    liger_kernel_config: dict[str, Any] | None = key(None, "Which of these kernels.", native=False)
    fp8: bool = key(
        False, "Multiply in 8-bit floats (torchao); needs an NVIDIA GPU from compute capability 8.9 on.", native=False
    )
    fp8_backend: str = key("auto", "Library for it: auto and torchao are the same.", native=False)
    fp8_enable_fsdp_float8_all_gather: bool = key(
        False, "Gather FSDP weights in 8 bits.", not_yet="8-bit weights between sharded processes", native=False
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Loader(Group):
    """Processes that bring batches."""

    TITLE: ClassVar[str] = "batch loading"
    NATIVE: ClassVar[bool] = True

    dataloader_num_workers: int = key(0, "Processes that prepare batches beside the training; 0: none.", ge=0)
    dataloader_drop_last: bool = key(False, "Leave out the last batch where it is not full.")
    dataloader_pin_memory: bool = key(True, "Hold batches in page-locked memory.", note="It matters with a GPU only.")
    dataloader_persistent_workers: bool = key(False, "Keep these processes between epochs.")
    dataloader_prefetch_factor: int | None = key(None, "Batches that each process prepares ahead.", ge=1)
    remove_unused_columns: bool = key(
        True,
        "Drop columns that the model does not take.",
        note="Tunesmith makes its own batches; always off.",
        native=False,
    )
    label_names: tuple[str, ...] = key(
        (), "Names of label columns.", note="Tunesmith's batches have one, labels.", native=False
    )
    length_column_name: str = key(
        "length", "Column that holds lengths.", note="Tunesmith counts tokens itself.", native=False
    )
    accelerator_config: dict[str, Any] | str | None = key(None, "Settings of accelerate: a mapping, or a JSON file.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Processes(Group):
    """Several devices."""

    TITLE: ClassVar[str] = "several processes"
    NATIVE: ClassVar[bool] = True

    use_cpu: bool = key(False, "Use the CPU even where there is a GPU.")
    local_rank: int = key(
        -1, "Number of this process on its machine.", note="torchrun sets it; the key changes nothing.", native=False
    )
    ddp_timeout: int = key(
        1800, "Seconds that processes wait for each other.", gt=0, note="One process waits for nobody."
    )
    ddp_backend: str | None = key(
        None,
        "How processes talk.",
        choices=("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"),
        note="One process talks to nobody.",
    )
    ddp_find_unused_parameters: bool | None = key(
        None, "Look for weights without a gradient in each step.", note=_NO_WRAPPER
    )
    ddp_bucket_cap_mb: int | None = key(None, "Size of the pieces that gradients are sent in, in MB.", ge=1)
    ddp_broadcast_buffers: bool | None = key(None, "Send buffers to all processes in each step.", note=_NO_WRAPPER)
    ddp_static_graph: bool | None = key(None, "Promise that every step uses the same weights.", note=_NO_WRAPPER)
    deepspeed: dict[str, Any] | str | None = key(
        None, "DeepSpeed settings: a mapping, or a JSON file.", not_yet=_SHARDED
    )
    fsdp: tuple[str, ...] = key((), "FSDP options.", not_yet=_SHARDED)
    fsdp_config: dict[str, Any] | str | None = key(None, "FSDP settings: a mapping, or a JSON file.", not_yet=_SHARDED)
    parallelism_config: dict[str, Any] | None = key(None, "Several kinds of parallelism at once.", not_yet=_SHARDED)
