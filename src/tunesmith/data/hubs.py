"""Data sets of hubs and clouds -> files on this machine, with one bounded attempt, or the reason."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core import env, optional
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.data.cache import digest
from tunesmith.data.catalog import SUFFIXES, DatasetSpec, Remote
from tunesmith.data.sources import split_name

logger = get_logger(__name__)

CONNECT_SECONDS = 8.0
_NAMES = {"hf": "Hugging Face", "ms": "ModelScope", "om": "OpenMind"}
_Files = tuple[tuple[Path, str], ...]


def fetch(spec: DatasetSpec, tokens: dict[str, str | None] | None = None, cache_dir: str | None = None) -> DatasetSpec:
    """The spec with its files on this machine; a local one as it is.

    Args:
        spec: what is wanted.
        tokens: access token by hub: hf, ms, om.
        cache_dir: another place of the hub cache.

    Raises:
        DataError: it cannot be had; the message says what was tried.
        MissingPackageError: the hub or the cloud needs a package.
    """
    remote = spec.remote
    if remote is None or spec.files:
        return spec
    token = (tokens or {}).get("hf" if remote.kind == "hf_file" else remote.kind)
    if remote.kind == "cloud":
        return replace(spec, files=_from_cloud(remote.url, spec.name))
    if remote.kind == "hf_file":
        path = fetch_file(remote.url, remote.folder or "", token)
        return replace(spec, files=((path, f"{remote.url}/{remote.folder}"),))
    try:
        split = split_name(spec.split)
    except ValueError as error:
        raise DataError([Problem(str(error), f"dataset {spec.name}")]) from error
    dataset = _load(remote, split, token, cache_dir, spec.name)
    shown = f"{remote.url}{f' ({remote.subset})' if remote.subset else ''}, split {split}"
    return replace(spec, files=tuple((path, shown) for path in _arrow_files(dataset)))


# -- hubs ------------------------------------------------------------------------------------------------------------


def _load(remote: Remote, split: str, token: str | None, cache_dir: str | None, name: str) -> Any:
    loaders: dict[str, Callable[[Remote, str, str | None, str | None], Any]] = {
        "hf": _load_hf,
        "ms": _load_modelscope,
        "om": _load_openmind,
    }
    is_local = Path(remote.url).expanduser().is_dir()
    tried = f"the folder {remote.url}" if is_local else f"{_NAMES[remote.kind]} {remote.url}"
    try:
        return loaders[remote.kind](remote, split, token, cache_dir)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"{remote.url} cannot be loaded: {type(error).__name__}: {reason}"
        fix = (
            f"tried: {tried}, subset {remote.subset or '-'}, folder {remote.folder or '-'}, split {split}; "
            "check these names, or download the files and name them with file_name"
        )
        raise DataError([Problem(what, f"dataset {name}", fix)]) from error


def _load_hf(remote: Remote, split: str, token: str | None, cache_dir: str | None) -> Any:
    from datasets import load_dataset

    url = remote.url
    if Path(url).expanduser().is_dir():
        url = str(Path(url).expanduser())
    elif not (env.is_offline() or env.switch("HF_DATASETS_OFFLINE")):
        probe(f"datasets/{url}", token)
    options = {} if remote.download_mode is None else {"download_mode": remote.download_mode}
    return load_dataset(
        url, name=remote.subset, data_dir=remote.folder, split=split, token=token, cache_dir=cache_dir, **options
    )


def _load_modelscope(remote: Remote, split: str, token: str | None, cache_dir: str | None) -> Any:
    module = optional.require("modelscope", extra="modelscope", purpose="ms_hub_url")
    if token:
        module.HubApi().login(token)
    dataset = module.MsDataset.load(
        remote.url, subset_name=remote.subset, data_dir=remote.folder, split=split, cache_dir=cache_dir
    )
    return dataset.to_hf_dataset() if hasattr(dataset, "to_hf_dataset") else dataset


def _load_openmind(remote: Remote, split: str, token: str | None, cache_dir: str | None) -> Any:
    module = optional.require("openmind", extra="openmind", purpose="om_hub_url")
    return module.OmDataset.load_dataset(
        path=remote.url, name=remote.subset, data_dir=remote.folder, split=split, token=token, cache_dir=cache_dir
    )


def _arrow_files(dataset: Any) -> list[Path]:
    """The files that hold exactly the rows of a loaded split; written where there are none."""
    files = [Path(entry["filename"]) for entry in dataset.cache_files]
    if files and getattr(dataset, "_indices", None) is None:
        return files
    path = env.home() / "downloads" / digest(dataset._fingerprint)[:32] / "rows.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(".rows.parquet.tmp")
        dataset.to_parquet(str(staged))
        staged.replace(path)
    return [path]


def fetch_file(repo: str, name: str, token: str | None) -> Path:
    """One file of a data set repository of Hugging Face, from its cache or downloaded; of a local folder, too.

    Raises:
        DataError: it cannot be had.
    """
    import huggingface_hub

    local = Path(repo).expanduser() / name
    if local.is_file():
        return local
    try:
        known = huggingface_hub.try_to_load_from_cache(repo, name, repo_type="dataset")
        if isinstance(known, str):
            return Path(known)
        if env.is_offline():
            raise OSError("not in the cache of this machine, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")
        probe(f"datasets/{repo}", token)
        return Path(huggingface_hub.hf_hub_download(repo, name, repo_type="dataset", token=token, etag_timeout=10))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = "tried: the hub cache, then the hub; write REMOTE:owner/name of a data set repository"
        raise DataError([Problem(f"{name} of {repo} cannot be had: {reason}", "dataset_dir", fix)]) from error


def probe(place: str, token: str | None) -> None:
    """One bounded question to the Hugging Face hub.

    Args:
        place: `datasets/owner/name`.
        token: access token.

    Raises:
        OSError: with the reason why it cannot be had.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    answer: list[Any] = []

    def ask() -> None:
        url = f"{constants.ENDPOINT}/api/{place}"
        try:
            headers = build_hf_headers(token=token)
            answer.append(int(get_session().get(url, headers=headers, timeout=CONNECT_SECONDS - 1).status_code))
        except Exception as error:
            answer.append(error)

    # Name look-ups obey no timeout of their own: the thread is left behind.
    thread = threading.Thread(target=ask, daemon=True, name="hub-probe")
    thread.start()
    thread.join(CONNECT_SECONDS)
    found = answer[0] if answer else TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")
    if isinstance(found, Exception):
        reason = str(found).splitlines()[0] if str(found) else type(found).__name__
        cached = "if it was loaded before, HF_HUB_OFFLINE=1 takes it from the cache"
        raise OSError(f"{constants.ENDPOINT} cannot be reached ({reason}); {cached}") from found
    if found in (401, 403, 404):
        raise OSError("the hub does not know it, or it is private or gated (then give hf_hub_token)")
    if found >= 400:
        raise OSError(f"the hub answered with status {found}")


# -- clouds ----------------------------------------------------------------------------------------------------------

_CLOUDS: dict[str, tuple[str, str, tuple[dict[str, Any], ...]]] = {
    "s3": ("s3fs", "s3", ({"anon": True}, {})),
    "s3a": ("s3fs", "s3", ({"anon": True}, {})),
    "gs": ("gcsfs", "gcs", ({"token": "anon"}, {})),
    "gcs": ("gcsfs", "gcs", ({"token": "anon"}, {})),
}
"""Address scheme -> package, its extra, and the ways in: without an account, then with the user's own."""


def _from_cloud(address: str, name: str) -> _Files:
    """Copies a file, or the files of a folder, to this machine; what is there unchanged is not copied again.

    Raises:
        DataError: it is not there, cannot be reached, or is of no known type.
    """
    import fsspec

    scheme = address.partition("://")[0]
    package, extra, ways = _CLOUDS.get(scheme, ("", "", ({},)))
    if package:
        optional.require(package, extra=extra, purpose=f"cloud_file_name: {scheme}://")
    reasons = []
    for options in ways:
        try:
            system, path = fsspec.core.url_to_fs(address, **options)
            return tuple(_copy(system, entry, address) for entry in _list(system, path))
        except Exception as error:
            way = "without an account" if options else "with the account of this machine"
            reasons.append(f"{way}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    what = f"cloud_file_name: {address} cannot be read"
    raise DataError([Problem(what, f"dataset {name}", "tried " + "; ".join(reasons))])


def _list(system: Any, path: str) -> list[dict[str, Any]]:
    entries = [system.info(path)]
    if entries[0]["type"] == "directory":
        entries = [entry for entry in system.ls(path, detail=True) if entry["type"] == "file"]
        entries = [entry for entry in entries if not Path(entry["name"]).name.startswith(".")]
    kinds = sorted({Path(entry["name"]).suffix.lower() for entry in entries})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        found = ", ".join(kind or "(none)" for kind in kinds) or "nothing"
        raise ValueError(f"it holds files of type {found}; files of one type are needed: {', '.join(SUFFIXES)}")
    return sorted(entries, key=lambda entry: str(entry["name"]))


def _copy(system: Any, entry: dict[str, Any], address: str) -> tuple[Path, str]:
    name = Path(entry["name"]).name
    shown = address if address.endswith(name) else f"{address.rstrip('/')}/{name}"
    marks = {key: str(value) for key, value in entry.items() if key.lower() in _MARKS}
    path = env.home() / "downloads" / digest(shown, marks)[:32] / name
    if not path.is_file():
        logger.info("downloading %s", shown)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{name}.tmp")
        try:
            system.get_file(entry["name"], str(staged))
            staged.replace(path)
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
    return path, shown


_MARKS = {"size", "etag", "lastmodified", "mtime", "created", "updated", "md5hash", "crc32c", "generation"}
"""What tells one version of a file from another."""
