"""Keys of other trainers: Megatron, HyperParallel, Ray."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Megatron(Group):
    """Megatron Bridge."""

    TITLE: ClassVar[str] = "Megatron"
    NOT_YET: ClassVar[str] = "training through Megatron"

    use_mca: bool = key(False, "Train through the Megatron-core adapter.")
    use_megatron_bridge: bool = key(False, "Train through Megatron Bridge.")
    tensor_model_parallel_size: int = key(1, "GPUs that share each layer.", ge=1)
    pipeline_model_parallel_size: int = key(1, "Groups of layers on GPUs of their own.", ge=1)
    expert_model_parallel_size: int = key(1, "GPUs that share the experts.", ge=1)
    context_parallel_size: int = key(1, "GPUs that share each sequence.", ge=1)
    virtual_pipeline_model_parallel_size: int | None = key(None, "Layer groups a pipeline stage holds in turn.", ge=1)
    sequence_parallel: bool = key(False, "Share norms and dropout along the sequence.")
    recompute_granularity: str | None = key(None, "What is computed again in the backward pass.")
    recompute_method: str | None = key(None, "Which layers that is.", choices=("uniform", "block"))
    recompute_num_layers: int | None = key(None, "How many layers that is.", ge=1)
    account_for_embedding_in_pipeline_split: bool | None = key(None, "Count the embedding as a layer.")
    account_for_loss_in_pipeline_split: bool | None = key(None, "Count the loss as a layer.")
    bias_activation_fusion: bool | None = key(None, "Fuse bias and activation.")
    apply_rope_fusion: bool | None = key(None, "Fuse rotary positions.")
    masked_softmax_fusion: bool | None = key(None, "Fuse mask and softmax.")
    cross_entropy_loss_fusion: bool | None = key(None, "Fuse the loss.")
    moe_grouped_gemm: bool | None = key(None, "Multiply all experts at once.")
    moe_token_dispatcher_type: str | None = key(
        None, "How tokens reach their experts.", choices=("allgather", "alltoall", "flex")
    )
    calculate_per_token_loss: bool | None = key(None, "Divide the loss by tokens, not by rows.")
    use_distributed_optimizer: bool = key(True, "Share optimizer states among GPUs.")
    overlap_param_gather: bool = key(True, "Gather weights while computing.")
    overlap_grad_reduce: bool = key(True, "Sum gradients while computing.")
    use_packed_sequences: bool = key(False, "Pack rows into sequences.")
    mixed_precision: str = key("bf16_mixed", "Recipe of number formats.")
    megatron_pretrained_checkpoint: str | None = key(None, "Megatron checkpoint to start from.")
    export_hf_on_finish: bool = key(False, "Write a Hugging Face model at the end.")
    extra_config: dict[str, Any] | str | None = key(None, "More settings: a mapping, or the path of a JSON file.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class HyperParallel(Group):
    """HyperParallel."""

    TITLE: ClassVar[str] = "HyperParallel"
    NOT_YET: ClassVar[str] = "training through HyperParallel"

    use_hyper_parallel: bool = key(False, "Train through HyperParallel.")
    hyper_parallel_args: str | None = key(None, "Its settings.")
    hyper_parallel_cp_size: int = key(1, "GPUs that share each sequence.", ge=1)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Ray(Group):
    """Ray."""

    TITLE: ClassVar[str] = "Ray"
    NOT_YET: ClassVar[str] = "training through Ray"

    ray_num_workers: int = key(1, "Number of Ray workers.", ge=1)
    ray_init_kwargs: dict[str, Any] | None = key(None, "Settings of ray.init.")
    master_addr: str | None = key(None, "Address of the first worker.")
    master_port: str | None = key(None, "Port of the first worker.")
