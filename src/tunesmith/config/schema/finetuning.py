"""Keys of the training method: stage, LoRA, freeze, OFT, and losses that replace the usual one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import MODEL, TRAIN, Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Method(Group):
    """What is learned and which weights move."""

    TITLE: ClassVar[str] = "method"
    COMMANDS: ClassVar[tuple[str, ...]] = TRAIN

    stage: str = key(
        "sft",
        "Kind of training: pt (plain text), sft (conversations), rm, dpo, kto (preferences), ppo, grpo (rewards).",
        choices=("pt", "sft", "rm", "ppo", "dpo", "kto", "grpo"),
        commands=("train", "data", "api"),
        note="`api` serves scores instead of answers where it says rm; any other value changes nothing there.",
    )
    finetuning_type: str = key(
        "lora",
        "Which weights are trained: lora (small extra matrices), freeze (some layers), full (all), oft.",
        choices=("lora", "oft", "freeze", "full"),
        commands=MODEL,
    )
    pure_bf16: bool = key(False, "Hold and train the weights themselves in bfloat16, without a float32 copy.")
    compute_accuracy: bool = key(False, "Report the share of right next tokens in evaluation.")
    early_stopping_steps: int | None = key(
        None, "Stop after this many evaluations in a row without a better result.", ge=1
    )
    plot_loss: bool = key(False, "Draw the loss curves into `output_dir`.")
    include_effective_tokens_per_second: bool = key(False, "Report trained tokens per second at the end.")
    micro_batch_tokens: int | None = key(
        None,
        "Most tokens in one forward pass; default: as many as memory holds. The result does not depend on it.",
        ge=1,
    )
    use_dft_loss: bool = key(False, "Weigh each token by the probability that the model gives it (DFT).")
    use_asft_loss: bool = key(False, "DFT held near the base model (ASFT).")
    asft_alpha: float = key(0.1, "Strength of that hold.", ge=0)
    use_eaft_loss: bool = key(False, "Weigh each token by the model's uncertainty (EAFT).")
    eaft_alpha: float = key(1.0, "Exponent of that weight.", ge=0)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Lora(Group):
    """LoRA and its kin."""

    TITLE: ClassVar[str] = "LoRA"
    COMMANDS: ClassVar[tuple[str, ...]] = TRAIN

    lora_rank: int = key(8, "Rank of the extra matrices; higher learns more and takes more memory.", ge=1)
    lora_alpha: int | None = key(None, "Scale of the extra matrices; default: twice the rank.", ge=1)
    lora_dropout: float = key(0.0, "Share of inputs dropped at random while training.", ge=0, lt=1)
    lora_target: tuple[str, ...] = key(
        ("all",), "What gets matrices: all linear layers; ends of names; regular expressions for whole names; experts."
    )
    additional_target: tuple[str, ...] = key((), "Modules trained in full beside the matrices and saved with them.")
    create_new_adapter: bool = key(False, "Merge the given adapters into the base and train a new one.")
    use_rslora: bool = key(False, "Scale by the square root of the rank (rsLoRA).")
    use_dora: bool = key(False, "Train direction and size of weights apart (DoRA).")
    loraplus_lr_ratio: float | None = key(None, "LoRA+: learning rate of matrix B over that of A; 16 is usual.", gt=0)
    loraplus_lr_embedding: float = key(1e-06, "LoRA+: learning rate of matrices on an embedding.", gt=0)
    pissa_init: bool = key(False, "Start from the principal parts of the weights (PiSSA).")
    pissa_iter: int = key(16, "Steps of the fast decomposition; -1 computes it exactly.", ge=-1)
    loftq_init: bool = key(
        False, "Start from the rounding error of a quantised base (LoftQ), so that the run begins near the full model."
    )
    pissa_convert: bool = key(False, "Save a PiSSA adapter as a plain LoRA.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Freeze(Group):
    """Training some layers."""

    TITLE: ClassVar[str] = "freeze"
    COMMANDS: ClassVar[tuple[str, ...]] = TRAIN

    freeze_trainable_layers: int = key(2, "Layers to train: the last n, or with a negative number the first n.")
    freeze_trainable_modules: tuple[str, ...] = key(("all",), "Modules of these layers to train: all, or names.")
    freeze_extra_modules: tuple[str, ...] = key((), "Modules outside the layers to train, too.")
    use_llama_pro: bool = key(False, "Train only the blocks that tunesmith expand added (LLaMA Pro).")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Oft(Group):
    """Orthogonal fine-tuning."""

    TITLE: ClassVar[str] = "OFT"
    COMMANDS: ClassVar[tuple[str, ...]] = TRAIN

    oft_rank: int = key(0, "Number of blocks of a rotation; 0: take `oft_block_size`.", ge=0)
    oft_block_size: int = key(32, "Size of a block of a rotation.", ge=0)
    oft_target: tuple[str, ...] = key(
        ("all",), "What gets rotations: all linear layers; ends of names; regular expressions for whole names."
    )
    module_dropout: float = key(0.0, "Share of rotations dropped at random while training.", ge=0, lt=1)
