"""The Hugging Face hub: what its cache on this machine holds, and one bounded attempt at a download."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import build_hf_headers, get_session

from tunesmith.core import env, log
from tunesmith.core.errors import ModelError

CONNECT_SECONDS = 8.0
_MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "README.md"]
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_logger = log.get_logger(__name__)


def missing_weights(folder: Path) -> list[str]:
    """Names of the weight files that a model folder should hold and does not; empty when it is complete."""
    for index in _INDEXES:
        if (folder / index).is_file():
            try:
                shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError):
                return [f"{index} (broken)"]
            return sorted(shard for shard in shards if not (folder / shard).is_file())
    return [] if any((folder / name).is_file() for name in _WEIGHTS) else [_WEIGHTS[0]]


def find_in_cache(repo: str, *, revision: str, cache_dir: str | None, marker: str = "config.json") -> Path | None:
    """The snapshot folder of a repository that is already in the hub cache and whole, or None.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit.
        cache_dir: another place of the hub cache.
        marker: a file that must be there; `adapter_config.json` for adapters, whose weights are not looked at.
    """
    found = _try_cache(repo, marker, revision, cache_dir)
    if found is None:
        return None
    return found.parent if marker != "config.json" or not missing_weights(found.parent) else None


def _try_cache(repo: str, marker: str, revision: str, cache_dir: str | None) -> Path | None:
    try:
        found = huggingface_hub.try_to_load_from_cache(repo, marker, revision=revision, cache_dir=cache_dir)
    except errors.HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _within(seconds: float, action: Callable[[], Any]) -> Any:
    """Runs `action` in a thread that is left behind when it takes longer: name look-ups obey no timeout of their own.

    Raises:
        TimeoutError: it took longer.
    """
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = action()
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True, name="hub-probe")
    thread.start()
    thread.join(seconds)
    if "error" in box:
        raise box["error"]
    if "value" not in box:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return box["value"]


def _probe(repo: str, revision: str, token: str | None) -> None:
    """One question to the hub whether the repository can be had.

    Raises:
        ModelError: with the reason why not.
    """
    url = f"{constants.ENDPOINT}/api/models/{repo}/revision/{revision}"
    try:
        response = _within(
            CONNECT_SECONDS,
            lambda: get_session().get(url, headers=build_hf_headers(token=token), timeout=CONNECT_SECONDS - 1),
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{constants.ENDPOINT} cannot be reached ({reason})") from error
    status = int(response.status_code)
    if status in (401, 403):
        raise ModelError("the hub refuses it: it does not exist, or it is private or gated; give hf_hub_token")
    if status == 404:
        raise ModelError(f"the hub does not know it (revision {revision})")
    if status >= 400:
        raise ModelError(f"the hub answered with status {status}")


def download(repo: str, *, revision: str, cache_dir: str | None, token: str | None) -> Path:
    """Downloads a repository into the hub cache; gives up within ten seconds when the hub cannot be reached.

    Raises:
        ModelError: offline, unreachable, unknown, refused, or broken off; the text is the reason alone.
    """
    if env.is_offline():
        raise ModelError("not tried: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")
    _probe(repo, revision, token)
    _logger.info("downloading %s (%s) from %s", repo, revision, constants.ENDPOINT)
    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, cache_dir=cache_dir, token=token, allow_patterns=_MODEL_FILES, etag_timeout=10
        )
    except (OSError, errors.HFValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"the download broke off: {error}; run again, what is there is kept") from error
    return Path(folder)
