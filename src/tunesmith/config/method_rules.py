"""What must hold between the keys of tuning methods: adapters, frozen layers, aids."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import RunConfig

Rule = Callable[[RunConfig], Iterator[Fault]]


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
        yield Fault(("pissa_init", "quantization_bit"), what, "drop pissa_init")
    needs_reference = config.stage == "dpo" and config.pref_loss not in ("orpo", "simpo") and not config.ref_model
    if config.stage in ("ppo", "kto") or needs_reference:
        what = f"pissa_init leaves no untouched base under the adapter, which stage {config.stage} compares with"
        yield Fault(("pissa_init", "stage"), what, "drop pissa_init")
    if config.pissa_convert and config.use_dora:
        what = "pissa_convert makes a plain LoRA, which a DoRA adapter cannot become"
        yield Fault(("pissa_convert", "use_dora"), what, "drop one of them")


def lora_plus_has_a_ratio(config: RunConfig) -> Iterator[Fault]:
    """LoRA+ is turned on by its ratio."""
    if config.asks_for("loraplus_lr_embedding") and config.loraplus_lr_ratio is None:
        keys = ("loraplus_lr_embedding", "loraplus_lr_ratio")
        yield Fault(keys, "loraplus_lr_embedding does nothing without loraplus_lr_ratio", "set loraplus_lr_ratio: 16")


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
    (_TRAIN, lora_plus_has_a_ratio),
    (_TRAIN, rotations_have_one_size),
    (_TRAIN, new_blocks_are_trained_apart),
    (("expand",), expansion_is_told),
)
"""The commands that a rule is for, and the rule."""
