"""Rules about files: what is named must be there, and nothing is written over by accident. Opens no file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.config.fault import Fault
from tunesmith.config.metrics import functions_exist
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.config.schema.key import MAKING
from tunesmith.config.tasks import task_is_known
from tunesmith.core.lazy import nearest
from tunesmith.core.machine import why_not_writable

WEIGHT_FILES = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OUTPUTS = {
    "output_dir": ("train", "expand", *MAKING),
    "export_dir": ("export", "expand"),
    "save_dir": ("eval",),
    "save_name": ("infer",),
    "matrix_save_name": ("infer",),
}
"""Key -> commands that write there; names of folders end in `_dir`, the others are files."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def looks_local(name: str) -> bool:
    """Whether a model name can only be a path: names of the hub are `name` or `owner/name`."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.lower().endswith(".gguf")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights of a model or an adapter."""
    return any((folder / name).exists() for name in WEIGHT_FILES)


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a `checkpoint-N` folder."""
    return any(_CHECKPOINT.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else False


def models_exist(config: RunConfig) -> Iterator[Fault]:
    """A name that can only be a path must exist; names of the hub are judged when the model is loaded."""
    names = [("model_name_or_path", config.model_name_or_path or "")]
    if config.command in KEYS["adapter_name_or_path"].commands:
        names += [("adapter_name_or_path", name) for name in config.adapter_name_or_path]
    for key, name in names:
        if looks_local(name) and not Path(name).expanduser().exists():
            yield Fault((key,), f"{key}: there is no {name}", _near(name))


def token_file_exists(config: RunConfig) -> Iterator[Fault]:
    """The file of new special tokens must be there."""
    name = config.new_special_tokens_config
    if name and not Path(name).expanduser().is_file():
        yield Fault(("new_special_tokens_config",), f"new_special_tokens_config: there is no file {name}", _near(name))


def checkpoint_exists(config: RunConfig) -> Iterator[Fault]:
    """A checkpoint to resume from must be there."""
    chosen = config.resume_from_checkpoint
    keys = ("resume_from_checkpoint",)
    if isinstance(chosen, str) and not Path(chosen).expanduser().is_dir():
        yield Fault(keys, f"resume_from_checkpoint: there is no folder {chosen}", _near(chosen))
    elif chosen is True and config.output_dir and not has_checkpoint(Path(config.output_dir).expanduser()):
        what = f"resume_from_checkpoint: true, but there is no checkpoint-N in {config.output_dir}"
        yield Fault(keys, what, "leave it out to start from the beginning")


def output_is_free(config: RunConfig) -> Iterator[Fault]:
    """Weights that no checkpoint can bring back are not written over unasked."""
    if not config.output_dir:
        return
    folder = Path(config.output_dir).expanduser()
    if config.do_train and not config.overwrite_output_dir and has_weights(folder) and not has_checkpoint(folder):
        what = f"output_dir: {config.output_dir} holds trained weights and no checkpoint to go on from"
        yield Fault(("output_dir",), what, "choose another folder, or set overwrite_output_dir: true")


def export_is_free(config: RunConfig) -> Iterator[Fault]:
    """An exported model is not written over unasked, and never the folder it is read from."""
    if not config.export_dir:
        return
    folder = Path(config.export_dir).expanduser()
    sources = [name for name in (config.model_name_or_path, *config.adapter_name_or_path) if name]
    if any(Path(name).expanduser().resolve() == folder.resolve() for name in sources):
        yield Fault(("export_dir",), "export_dir is the folder that weights are read from", "choose another folder")
    elif not config.overwrite_export and has_weights(folder):
        what = f"export_dir: {config.export_dir} holds a model already"
        yield Fault(("export_dir",), what, "choose another folder, or set overwrite_export: true")


def outputs_can_be_written(config: RunConfig) -> Iterator[Fault]:
    """A place that nothing can be written to is found out before the work, not after it."""
    for key, commands in OUTPUTS.items():
        name = getattr(config, key)
        if config.command not in commands or not name:
            continue
        path, is_folder = Path(name).expanduser(), key.endswith("_dir")
        if path.exists() and path.is_dir() != is_folder:
            kinds = ("a folder, not a file", "a file, not a folder")
            yield Fault((key,), f"{key}: {name} is {kinds[is_folder]}", "choose another name")
        elif why := why_not_writable(path):
            yield Fault((key,), f"{key}: {why}", "choose another place")


def text_exists(config: RunConfig) -> Iterator[Fault]:
    """What is named must be there."""
    for name in config.input_file_path:
        if not Path(name).expanduser().exists():
            yield Fault(("input_file_path",), f"input_file_path: there is no {name}", _near(name))
    if config.command == "data make" and config.chunks and not Path(config.chunks).expanduser().is_dir():
        fix = _near(config.chunks) or "tunesmith data split writes it"
        yield Fault(("chunks",), f"chunks: there is no folder {config.chunks}", fix)


def _near(name: str) -> str:
    """The entry of the nearest existing folder that was probably meant."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        return ""
    near = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    return f"did you mean {path.parent / near}?" if near else ""


RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (KEYS["model_name_or_path"].commands, models_exist),
    (KEYS["new_special_tokens_config"].commands, token_file_exists),
    (MAKING, text_exists),
    (("train",), checkpoint_exists),
    (tuple(sorted({command for commands in OUTPUTS.values() for command in commands})), outputs_can_be_written),
    (("train",), output_is_free),
    (("export",), export_is_free),
    (("eval",), task_is_known),
    (KEYS["metrics"].commands, functions_exist),
)
"""The commands that a rule is for, and the rule."""
