"""Tiny models of other kinds than Llama, and what tests of tuning methods ask of any model."""

from __future__ import annotations

from typing import Any

import torch

IDS = torch.tensor([[5, 9, 40, 7, 33, 21, 60, 12, 5, 9]])


def make_tiny_mixtral(**changes: Any) -> Any:
    """Two layers with four routed experts each, two of which a token meets."""
    from transformers import MixtralConfig, MixtralForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 448,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
        "sliding_window": None,
    }
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**(settings | changes)))


def make_tiny_qwen2_moe(**changes: Any) -> Any:
    """Two layers with four routed experts and one shared expert each."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 448,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
    }
    torch.manual_seed(0)
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**(settings | changes)))


def adapted(model: Any) -> list[str]:
    """Names of the modules that an adapter hangs on."""
    base = model.get_base_model()
    return sorted(name for name, module in base.named_modules() if hasattr(module, "base_layer"))


def trained(model: Any, steps: int = 3, rate: float = 1e-2) -> Any:
    """The same model after some steps, so that every trainable tensor has moved."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model.eval()(input_ids=ids).logits
