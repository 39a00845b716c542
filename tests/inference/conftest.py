"""Tiny random models whose answers vary, and adapters for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import TINY, make_tiny_llama

VARIED: dict[str, Any] = {"max_position_embeddings": 128, "initializer_range": 0.3}
"""Large random weights: answers do not repeat themselves."""


def make_llama(**changes: Any) -> Any:
    return make_tiny_llama(seed=3, **({"tie_word_embeddings": False} | VARIED | changes)).eval()


def make_qwen3(**changes: Any) -> Any:
    """Normalised queries and keys, a head size of its own, tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    settings = {"num_hidden_layers": 3, "head_dim": 16, "tie_word_embeddings": True}
    torch.manual_seed(4)
    return Qwen3ForCausalLM(Qwen3Config(**(TINY | VARIED | settings | changes))).eval()


def make_adapter(folder: Path, seed: int, make: Any = make_llama, **changes: Any) -> Path:
    """Saves a random LoRA adapter with a strong effect; gives its folder."""
    from peft import LoraConfig, get_peft_model

    settings: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    model = get_peft_model(make(), LoraConfig(task_type="CAUSAL_LM", **(settings | changes)))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        elif "modules_to_save" in name:
            parameter.data = parameter.data + torch.randn(parameter.shape, generator=generator) * 0.2
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def llama() -> Any:
    return make_llama()


@pytest.fixture(scope="session")
def qwen3() -> Any:
    return make_qwen3()


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four adapters for the tiny Llama, of different ranks, scalings and modules."""
    root = tmp_path_factory.mktemp("adapters")
    kinds: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"r": 8, "use_rslora": True},
        "c": {
            "target_modules": "all-linear",
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 40},
        },
        "d": {"lora_alpha": 3, "target_modules": ["gate_proj", "o_proj"]},
    }
    return {name: make_adapter(root / name, seed, **kind) for seed, (name, kind) in enumerate(kinds.items())}
