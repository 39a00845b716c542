"""The keys that a word nobody knows was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tunesmith.config.schema import ALIASES, KEYS

SYNONYMS = {
    "adapter": "adapter_name_or_path",
    "alpha": "lora_alpha",
    "base_model": "model_name_or_path",
    "batch": "per_device_train_batch_size",
    "datasets": "dataset",
    "epochs": "num_train_epochs",
    "gradient_accumulation": "gradient_accumulation_steps",
    "gpu_batch_size": "per_device_train_batch_size",
    "endpoint": "base_url",
    "input": "input_file_path",
    "input_file": "input_file_path",
    "learningrate": "learning_rate",
    "lora_r": "lora_rank",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_seq_len": "cutoff_len",
    "max_seq_length": "cutoff_len",
    "micro_batch_size": "per_device_train_batch_size",
    "model": "model_name_or_path",
    "model_name": "model_name_or_path",
    "model_path": "model_name_or_path",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "output": "output_dir",
    "r": "lora_rank",
    "rank": "lora_rank",
    "scheduler": "lr_scheduler_type",
    "seq_len": "cutoff_len",
    "system_prompt": "default_system",
    "target_modules": "lora_target",
    "train_batch_size": "per_device_train_batch_size",
    "train_type": "finetuning_type",
    "wd": "weight_decay",
}
"""What other programs call it -> our key. For suggestions only; none of these is accepted."""


def folded(name: str) -> str:
    """A name as its key would be written: lower case, underscores."""
    return name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")


def near_keys(name: str, extra: Iterable[str] = (), most_edits: int | None = None) -> tuple[str, ...]:
    """The keys nearest to `name`: one, several where they are equally near, or none.

    Args:
        name: a word that is no key.
        extra: names that count beside keys and aliases.
        most_edits: take no key that is farther away than this many letters.
    """
    word = folded(name)
    if word in SYNONYMS:
        return (SYNONYMS[word],)
    known = [*KEYS, *ALIASES, *extra]
    if word in known:
        return (word,)
    hits = difflib.get_close_matches(word, known, n=8, cutoff=0.6)
    if not hits:
        return ()
    distances = {hit: edit_distance(word, hit) for hit in hits}
    best = min(distances.values())
    if most_edits is not None and best > most_edits:
        return ()
    return tuple(hit for hit in hits if distances[hit] == best)[:3]


def did_you_mean(names: tuple[str, ...]) -> str:
    """`did you mean a or b?`, empty without names."""
    return f"did you mean {' or '.join(names)}?" if names else ""


def edit_distance(first: str, second: str) -> int:
    """Letters added, left out, replaced, or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
