"""Keys of the model, its adapters, its tokenizer, and how it is held in memory."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import BASE, INFER, MODEL, TOKENIZER, TRAIN, Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Model(Group):
    """Which model and adapters."""

    TITLE: ClassVar[str] = "model"
    COMMANDS: ClassVar[tuple[str, ...]] = MODEL

    model_name_or_path: str | None = key(
        None,
        "The base model: a folder, a GGUF file, a model of the hub, or smollm2-135m, which comes with Tunesmith.",
        commands=BASE,
    )
    adapter_name_or_path: tuple[str, ...] = key(
        (), "Adapters on top of the base model, in this order: folders or models of the hub."
    )
    adapter_folder: str | None = key(
        None, "Subfolder of the adapter's repository that holds its weights.", not_yet="adapters in subfolders"
    )
    force_base: bool = key(False, "Load an adapter even though it says that it was trained on another base model.")
    cache_dir: str | None = key(
        None, "Where downloaded models are kept; the default is the hub's cache.", commands=BASE
    )
    model_revision: str = key("main", "Branch, tag or commit of the model on the hub.", commands=BASE)
    trust_remote_code: bool = key(
        False, "Run Python code that comes with the model. Only for publishers you trust.", commands=BASE
    )
    hf_hub_token: str | None = key(None, "Access token of the Hugging Face hub.", secret=True, commands=BASE)
    ms_hub_token: str | None = key(
        None, "Access token of ModelScope.", secret=True, commands=BASE, not_yet="the ModelScope hub"
    )
    om_hub_token: str | None = key(
        None, "Access token of openMind.", secret=True, commands=BASE, not_yet="the openMind hub"
    )
    low_cpu_mem_usage: bool = key(
        True,
        "Load weights without a second copy in memory.",
        note="Weights are always loaded so; the key changes nothing.",
    )
    print_param_status: bool = key(
        False, "Print every parameter with its dtype and whether it is trained.", commands=TRAIN
    )
    train_from_scratch: bool = key(False, "Start from random weights of the model's shape.", commands=TRAIN)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Tokenizer(Group):
    """The tokenizer and new tokens."""

    TITLE: ClassVar[str] = "tokenizer"
    COMMANDS: ClassVar[tuple[str, ...]] = TOKENIZER

    use_fast_tokenizer: bool = key(
        True, "Use the Rust tokenizer.", note="transformers 5 has no other kind; the key changes nothing."
    )
    resize_vocab: bool = key(
        False, "Grow the embeddings to the tokenizer's size; new tokens turn this on by themselves."
    )
    split_special_tokens: bool = key(
        False,
        "Let the tokenizer cut special tokens in plain text into pieces.",
        note="Text of rows never becomes a special token anyway; the tokenizer beside the result is told.",
    )
    add_tokens: tuple[str, ...] = key((), "New plain tokens. With LoRA only their rows are trained.")
    add_special_tokens: tuple[str, ...] = key((), "New special tokens. With LoRA only their rows are trained.")
    new_special_tokens_config: str | None = key(
        None, "YAML file of new special tokens, each with a text that describes it."
    )
    init_special_tokens: str = key(
        "noise_init",
        "How rows of new tokens start: mean of all rows plus noise, or from their descriptions.",
        choices=("noise_init", "desc_init", "desc_init_w_noise"),
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Memory(Group):
    """Attention, precision, and what is held in memory."""

    TITLE: ClassVar[str] = "attention, precision, memory"
    COMMANDS: ClassVar[tuple[str, ...]] = MODEL

    dtype: str = key(
        "auto",
        "Number format of training: auto takes bfloat16 only where the hardware multiplies it faster than float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
        value_names={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"},
        commands=TRAIN,
    )
    infer_dtype: str = key(
        "auto",
        "Number format of chat and export: auto keeps the model's own, or what the hardware is fast at.",
        choices=("auto", "float16", "bfloat16", "float32"),
        value_names={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"},
        commands=INFER,
    )
    flash_attn: str = key(
        "auto",
        "Attention kernel: auto, disabled (plain), sdpa (of torch), fa2 or fa3 (the flash-attn packages).",
        choices=("auto", "disabled", "sdpa", "fa2", "fa3"),
        value_names={"off": "disabled", "false": "disabled", "true": "fa2"},
    )
    disable_gradient_checkpointing: bool = key(
        False,
        "Never compute activations a second time to save memory.",
        note="Tunesmith does so only when `gradient_checkpointing` asks for it or memory would not do otherwise.",
        commands=TRAIN,
    )
    use_reentrant_gc: bool = key(
        True,
        "Use torch's re-entrant kind of gradient checkpointing.",
        note="Both kinds give the same gradients; Tunesmith takes the one without re-entry unless "
        "`gradient_checkpointing_kwargs` says `use_reentrant: true`.",
        commands=TRAIN,
    )
    upcast_layernorm: bool = key(False, "Hold norm layers in float32 where the model has fewer bits.", commands=TRAIN)
    upcast_lmhead_output: bool = key(
        False,
        "Compute the loss from float32 logits.",
        note="The loss is always computed in float32; the key changes nothing.",
        commands=TRAIN,
    )
    rope_scaling: str | None = key(
        None,
        "Stretch rotary positions to texts longer than the model was trained on.",
        choices=("linear", "dynamic", "yarn", "llama3"),
        note="In training by `cutoff_len` over the model's positions, rounded up; what was trained so is loaded so.",
    )
    shift_attn: bool = key(
        False,
        "Shifted sparse attention (LongLoRA) in training: half of the heads see groups of a quarter of `cutoff_len`, "
        "the others the same groups shifted by a half.",
        commands=TRAIN,
    )
    mixture_of_depths: str | None = key(
        None,
        "Mixture of depths: convert makes every second block work on an eighth of the tokens; load uses such a model.",
        choices=("convert", "load"),
        note="A converted model is known by its config.json, with or without the key.",
    )
    use_unsloth: bool = key(
        False, "Train with unsloth's kernels.", note="It needs an NVIDIA GPU, and none has run it yet.", commands=TRAIN
    )
    use_unsloth_gc: bool = key(
        False, "Gradient checkpointing that keeps the inputs of layers in the CPU's memory.", commands=TRAIN
    )
    enable_liger_kernel: bool = key(
        False,
        "Fused kernels of the liger-kernel package.",
        note="They need an NVIDIA GPU, and none has run them yet.",
        commands=TRAIN,
    )
    use_v1_kernels: bool | None = key(False, "Experimental kernels of LLaMA-Factory.", not_yet="these kernels")
    moe_aux_loss_coef: float | None = key(
        None, "Weight of the load-balancing loss of routed experts; it is added for each row.", ge=0, commands=TRAIN
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KTransformers(Group):
    """Experts on the CPU."""

    TITLE: ClassVar[str] = "KTransformers"
    COMMANDS: ClassVar[tuple[str, ...]] = MODEL
    NOT_YET: ClassVar[str] = "experts on the CPU through KTransformers"

    use_kt: bool = key(False, "Keep the experts of a mixture model on the CPU.")
    kt_config: dict[str, Any] | None = key(None, "Settings handed to KTransformers.")
    kt_cpu_activation: str | None = key(
        None, "Keep or recompute the activations of the CPU experts.", choices=("retain", "recompute")
    )
    kt_weight_path: str | None = key(None, "Folder of the expert weights in KTransformers' format.")
    kt_non_expert_weight_path: str | None = key(None, "Folder of all other weights.")
    kt_expert_checkpoint_path: str | None = key(None, "Checkpoint of the experts.")
    kt_use_lora_experts: bool | None = key(None, "Train LoRA experts beside the CPU experts.")
    kt_lora_expert_num: int | None = key(None, "Number of LoRA experts.", ge=1)
    kt_lora_expert_intermediate_size: int | None = key(None, "Inner size of a LoRA expert.", ge=1)
