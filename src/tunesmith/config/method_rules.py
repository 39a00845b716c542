"""What must hold between the keys of tuning methods: adapters, frozen layers, aids."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.optimizer_rules import SWITCHES, optimizer_family
from tunesmith.config.schema import RunConfig
from tunesmith.config.stage_rules import REFERENCE_FREE

Rule = Callable[[RunConfig], Iterator[Fault]]


def _compares(config: RunConfig) -> bool:
    """Whether the run needs a reference model."""
    is_preference = config.stage == "kto" or (config.stage == "dpo" and config.pref_loss not in REFERENCE_FREE)
    return is_preference or config.stage in ("ppo", "grpo") or config.use_asft_loss


def idle_keys(config: RunConfig) -> list[str]:
    """Keys of another `finetuning_type` than the one that is used: a command line may change it over a whole file."""
    owners: dict[str, tuple[str, ...]] = {"additional_target": ("lora", "oft")}
    owners |= dict.fromkeys(("lora_rank", "lora_alpha", "lora_dropout", "lora_target"), ("lora",))
    owners |= dict.fromkeys(("oft_rank", "oft_block_size", "oft_target", "module_dropout"), ("oft",))
    if not config.use_llama_pro:
        frozen = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
        owners |= dict.fromkeys(frozen, ("freeze",))
    return [name for name, types in owners.items() if config.asks_for(name) and config.finetuning_type not in types]


def pissa_is_on(config: RunConfig) -> Iterator[Fault]:
    """Details of PiSSA need PiSSA."""
    for name in ("pissa_iter", "pissa_convert"):
        if config.asks_for(name) and not config.pissa_init:
            yield Fault((name, "pissa_init"), f"{name} does nothing without pissa_init", "set pissa_init: true")


def pissa_starts_an_adapter(config: RunConfig) -> Iterator[Fault]:
    """PiSSA is a way to start, changes the base, and leaves no untouched reference under the adapter."""
    if not config.pissa_init:
        return
    if config.adapter_name_or_path and not config.create_new_adapter:
        what = "pissa_init starts a new adapter, but the one in adapter_name_or_path is trained on"
        yield Fault(("pissa_init", "adapter_name_or_path"), what, "drop pissa_init, or set create_new_adapter: true")
    if config.quantization_bit is not None:
        what = "pissa_init changes the base weights, which quantised weights do not allow"
        yield Fault(("pissa_init", "quantization_bit"), what, "use loftq_init: true, which leaves the base as it is")
    if _compares(config) and not config.ref_model:
        what = f"pissa_init leaves no untouched base under the adapter, which stage {config.stage} compares with"
        yield Fault(("pissa_init", "stage"), what, "drop pissa_init")
    if config.pissa_convert and config.use_dora:
        what = "pissa_convert makes a plain LoRA, which a DoRA adapter cannot become"
        yield Fault(("pissa_convert", "use_dora"), what, "drop one of them")


def loftq_has_an_error_to_start_from(config: RunConfig) -> Iterator[Fault]:
    """LoftQ makes good what rounding took."""
    if not config.loftq_init:
        return
    if config.quantization_bit is None:
        what = "loftq_init makes good what quantisation takes from the base, and this base is not quantised"
        yield Fault(("loftq_init", "quantization_bit"), what, "set quantization_bit: 4, or drop loftq_init")
    if config.adapter_name_or_path:
        what = "loftq_init starts a new adapter, but the one in adapter_name_or_path is trained on"
        yield Fault(("loftq_init", "adapter_name_or_path"), what, "drop one of them")
    for name in ("pissa_init", "use_dora"):
        if getattr(config, name):
            yield Fault(("loftq_init", name), f"loftq_init and {name} exclude each other", "keep one")
    if _compares(config) and not config.ref_model:
        what = f"loftq_init starts away from the rounded base, which stage {config.stage} compares with"
        yield Fault(("loftq_init", "stage"), what, "drop loftq_init, or name a ref_model")


def unsloth_loads_alone(config: RunConfig) -> Iterator[Fault]:
    """Unsloth makes the base model by itself."""
    if not config.use_unsloth:
        return
    for name in ("rope_scaling", "mixture_of_depths", "quantization_bit", "train_from_scratch", "shift_attn"):
        if getattr(config, name):
            yield Fault(("use_unsloth", name), f"use_unsloth and {name} exclude each other", "drop use_unsloth")
    if config.finetuning_type == "oft":
        keys = ("use_unsloth", "finetuning_type")
        yield Fault(keys, "use_unsloth has no orthogonal fine-tuning", "drop use_unsloth, or use lora")


def lora_plus_has_a_ratio(config: RunConfig) -> Iterator[Fault]:
    """LoRA+ is turned on by its ratio."""
    if config.asks_for("loraplus_lr_embedding") and config.loraplus_lr_ratio is None:
        keys = ("loraplus_lr_embedding", "loraplus_lr_ratio")
        yield Fault(keys, "loraplus_lr_embedding does nothing without loraplus_lr_ratio", "set loraplus_lr_ratio: 16")
    if config.loraplus_lr_ratio and optimizer_family(config) != "native":
        what = "loraplus_lr_ratio sets learning rates of matrices, which this optimizer does not tell apart"
        yield Fault(("loraplus_lr_ratio", *SWITCHES, "optim"), what, "leave the optimizer's keys out")


def rotations_have_one_size(config: RunConfig) -> Iterator[Fault]:
    """The number of blocks and their size give each other."""
    if config.finetuning_type != "oft":
        return
    keys = ("oft_rank", "oft_block_size")
    if config.oft_rank and config.oft_block_size and config.asks_for("oft_block_size"):
        what = "oft_rank and oft_block_size give each other (their product is a layer's width)"
        yield Fault(keys, what, "keep one")
    elif not config.oft_rank and not config.oft_block_size:
        yield Fault(keys, "oft_rank and oft_block_size are both 0", "set oft_block_size: 32")
    if not config.oft_target:
        yield Fault(("oft_target",), "oft_target is empty: nothing would be trained", "set oft_target: all")


def new_blocks_are_trained_apart(config: RunConfig) -> Iterator[Fault]:
    """LLaMA Pro trains added blocks and nothing else."""
    if config.use_llama_pro and config.finetuning_type == "full":
        what = "use_llama_pro trains added blocks only, finetuning_type full everything"
        yield Fault(("use_llama_pro", "finetuning_type"), what, "set finetuning_type: freeze or lora")


def shifted_attention_fits(config: RunConfig) -> Iterator[Fault]:
    """Shifted groups are for learning long texts; a reference model sees whole rows, and other kernels no groups."""
    if not config.shift_attn:
        return
    if _compares(config) or config.stage not in ("pt", "sft"):
        what = "shift_attn is for stages pt and sft; what compares with another model needs whole rows"
        yield Fault(("shift_attn", "stage"), what)
    if config.flash_attn in ("fa2", "fa3"):
        what = f"shift_attn runs through Tunesmith's own attention, not through flash_attn: {config.flash_attn}"
        yield Fault(("shift_attn", "flash_attn"), what, "set flash_attn: auto")


def one_format_for_evaluation(config: RunConfig) -> Iterator[Fault]:
    """Evaluation computes in one format."""
    if config.bf16_full_eval and config.fp16_full_eval:
        yield Fault(("bf16_full_eval", "fp16_full_eval"), "bf16_full_eval and fp16_full_eval exclude each other")


def offload_is_checkpointing(config: RunConfig) -> Iterator[Fault]:
    """Offload is a kind of gradient checkpointing; the re-entrant kind hides what routers choose."""
    if config.use_unsloth_gc and config.disable_gradient_checkpointing:
        what = "use_unsloth_gc is gradient checkpointing, which disable_gradient_checkpointing forbids"
        yield Fault(("use_unsloth_gc", "disable_gradient_checkpointing"), what, "keep one")
    reentrant = (config.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    if reentrant and config.moe_aux_loss_coef:  # memory may turn checkpointing on, too
        what = "re-entrant gradient checkpointing hides the routers from the balancing loss of moe_aux_loss_coef"
        yield Fault(("gradient_checkpointing_kwargs", "moe_aux_loss_coef"), what, "drop use_reentrant")


def liger_is_on(config: RunConfig) -> Iterator[Fault]:
    """Details of kernels need the kernels."""
    if config.liger_kernel_config and not (config.enable_liger_kernel or config.use_liger_kernel):
        keys = ("liger_kernel_config", "enable_liger_kernel")
        yield Fault(keys, "liger_kernel_config does nothing without enable_liger_kernel")


def conversion_is_trained(config: RunConfig) -> Iterator[Fault]:
    """New routers know nothing: everything must be trained with them."""
    if config.mixture_of_depths == "convert" and config.finetuning_type != "full":
        what = f"mixture_of_depths: convert changes what every block does, finetuning_type {config.finetuning_type} "
        yield Fault(
            ("mixture_of_depths", "finetuning_type"),
            f"{what}trains too little of it",
            "set finetuning_type: full; a converted model takes adapters afterwards",
        )


def expansion_is_told(config: RunConfig) -> Iterator[Fault]:
    """`expand` needs to know how many blocks, and where to write."""
    if config.num_expand is None:
        yield Fault(("num_expand",), "num_expand is missing", "set num_expand to the number of blocks to add")
    if not config.output_dir:
        yield Fault(("output_dir",), "output_dir is missing", "name the folder for the expanded model")


_TRAIN = ("train",)
RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (_TRAIN, pissa_is_on),
    (_TRAIN, pissa_starts_an_adapter),
    (_TRAIN, loftq_has_an_error_to_start_from),
    (_TRAIN, unsloth_loads_alone),
    (_TRAIN, lora_plus_has_a_ratio),
    (_TRAIN, rotations_have_one_size),
    (_TRAIN, new_blocks_are_trained_apart),
    (_TRAIN, shifted_attention_fits),
    (_TRAIN, one_format_for_evaluation),
    (_TRAIN, offload_is_checkpointing),
    (_TRAIN, liger_is_on),
    (_TRAIN, conversion_is_trained),
    (("expand",), expansion_is_told),
)
"""The commands that a rule is for, and the rule."""
