"""Optimizers on the shape of the 135M model: bytes of states a weight, time of an update next to the default.

Gradients are random and ready, so that only the update is timed: default, other, default, other, in one process. The
first update (which makes states and projections) is left out. The update of a full-tuning step is a small part of it:
see `share_of_step` of benchmarks/sft.py's model for that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = {
    "adamw_torch (foreach where it is faster)": {"optim": "adamw_torch"},
    "adamw_bnb_8bit": {"optim": "adamw_bnb_8bit"},
    "lion_8bit": {"optim": "lion_8bit"},
    "adafactor": {"optim": "adafactor"},
    "galore, rank 16": {"use_galore": True},
    "galore, rank 16, layerwise": {"use_galore": True, "galore_layerwise": True},
    "apollo, rank 16": {"use_apollo": True},
    "badam, layers": {"use_badam": True},
    "badam, 5 % of each weight": {"use_badam": True, "badam_mode": "ratio"},
    "adam-mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lomo": {"optim": "lomo"},
    "adalomo": {"optim": "adalomo"},
    "schedule_free_adamw": {"optim": "schedule_free_adamw"},
}


def make_model(layers: int, vocabulary: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(shape)


class Bench:
    """A model, an optimizer of ours, and one random gradient for each weight."""

    def __init__(self, model: nn.Module, folder: str, **keys: Any) -> None:
        from transformers import Trainer

        from tunesmith.config.schema import RunConfig
        from tunesmith.training.arguments import training_arguments
        from tunesmith.training.optimizers.hooks import OptimizerHooks
        from tunesmith.training.optimizers.table import optimizer_builder

        class Holder(OptimizerHooks, Trainer):
            pass

        config = RunConfig.from_dict(
            {"finetuning_type": "full", "output_dir": folder, "use_cpu": True, "learning_rate": 1e-6, **keys}
        )
        self.model = model
        holder = Holder(model=model, args=training_arguments(config, autocast=None))
        holder.make_optimizer = optimizer_builder(config)
        self.optimizer: Any = holder.create_optimizer()
        generator = torch.Generator().manual_seed(1)
        self.gradients = {w: torch.randn(w.shape, generator=generator) * 1e-4 for w in model.parameters()}

    def update(self) -> float:
        """Seconds from ready gradients to changed weights."""
        trained = [w for w in self.model.parameters() if w.requires_grad]
        if hasattr(self.optimizer, "arm"):
            self.optimizer.arm()
        loss = sum((w * self.gradients[w]).sum() for w in trained)
        started = time.perf_counter()
        loss.backward()
        self.optimizer.step()
        seconds = time.perf_counter() - started
        self.optimizer.zero_grad()
        return seconds

    def backward_only(self) -> float:
        """Seconds of the backward pass alone, which hands the gradients over."""
        loss = sum((w * self.gradients[w]).sum() for w in self.model.parameters() if w.requires_grad)
        started = time.perf_counter()
        loss.backward()
        seconds = time.perf_counter() - started
        self.model.zero_grad()
        return seconds


def compare(keys: dict[str, Any], layers: int, vocabulary: int, rounds: int) -> dict[str, Any]:
    from tunesmith.training.optimizers.memory import measured_bytes

    default, other = make_model(layers, vocabulary), make_model(layers, vocabulary)
    total = sum(w.numel() for w in default.parameters())
    left, right = Bench(default, "unused"), Bench(other, "unused", **keys)
    handing_over = min(left.backward_only() for _ in range(3))
    left.update(), right.update()
    seconds = [(left.update(), right.update()) for _ in range(rounds)]
    return {
        "bytes_of_states_each": round(measured_bytes(right.optimizer) / total, 3),
        "default_seconds": round(statistics.median(a for a, _ in seconds) - handing_over, 4),
        "seconds": round(statistics.median(b for _, b in seconds) - handing_over, 4),
        "ratio": round(statistics.median((b - handing_over) / (a - handing_over) for a, b in seconds), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="names with this text in them")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "optimizers.json")
    options = parser.parse_args()
    results = {}
    for name, keys in CASES.items():
        if options.only in name:
            results[name] = compare(keys, options.layers, options.vocabulary, options.rounds)
            print(f"{name:45} {results[name]}", flush=True)
    facts = {"layers": options.layers, "vocabulary": options.vocabulary, "threads": torch.get_num_threads()}
    options.output.write_text(json.dumps({**facts, "default": "adamw_torch_fused", "cases": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
