"""Which base an adapter was trained on: a fingerprint of weight files, and the note that training leaves beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.core import log
from tunesmith.core.errors import ModelError
from tunesmith.core.runs import write_json

PROVENANCE_FILE = "tunesmith.json"
_EDGE = 64 * 1024
_SAMPLE = 4 * 1024
_MAX_HEADER = 100_000_000
_logger = log.get_logger(__name__)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's or adapter's weights: safetensors, or where there are none, .bin; no value head."""
    for suffix in ("safetensors", "bin"):
        if found := sorted(file for file in folder.glob(f"*.{suffix}") if not file.name.startswith("value_head.")):
            return found
    return []


def fingerprint(path: Path) -> str:
    """Identifies weights without reading them all: headers, the edges of each file, and 4 KiB out of every tensor.

    The samples inside tensors are what tells a merged model from its base: a merge leaves sizes, names, embeddings and
    norms as they were.

    Args:
        path: a model's or adapter's folder.

    Returns:
        64 hex digits.

    Raises:
        ModelError: the folder holds no weight file, or one that is cut off.
    """
    files = weight_files(path)
    if not files:
        raise ModelError(f"{path} holds no weights (*.safetensors or *.bin)")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}|{size}|".encode())
        with file.open("rb") as handle:
            if file.suffix == ".safetensors":
                _add_tensors(digest, handle, size, file)
            digest.update(_read_at(handle, 0, _EDGE))
            digest.update(_read_at(handle, max(0, size - _EDGE), _EDGE))
    return digest.hexdigest()


def weights_digest(model: Any) -> str:
    """Tells one model in memory from another by 64 values of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu().numpy()
        digest.update(name.encode() + sample.tobytes())
    return digest.hexdigest()


def _read_at(handle: BinaryIO, start: int, count: int) -> bytes:
    handle.seek(start)
    return handle.read(count)


def _add_tensors(digest: Any, handle: BinaryIO, size: int, file: Path) -> None:
    """Adds the header and the middle of each tensor; a file shorter than its header says is an error."""
    length = int.from_bytes(_read_at(handle, 0, 8), "little")
    if not 0 < length <= min(size - 8, _MAX_HEADER):
        raise ModelError(f"{file} is no safetensors file, or it is cut off")
    header = handle.read(length)
    digest.update(header)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        spans = [tuple(entry["data_offsets"]) for _, entry in sorted(entries.items())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: its header cannot be read") from error
    data = 8 + length
    if spans and data + max(end for _, end in spans) > size:
        raise ModelError(f"{file} is cut off: {size} bytes, its header speaks of {data + max(e for _, e in spans)}")
    for begin, end in spans:
        middle = begin + max(0, (end - begin - _SAMPLE) // 2)
        digest.update(_read_at(handle, data + middle, min(_SAMPLE, end - begin)))


def write_provenance(
    folder: Path,
    *,
    base_model: str,
    base_path: Path,
    template: str | None,
    stacked_adapters: Sequence[Path] = (),
    quantization: str | None = None,
) -> None:
    """Writes `tunesmith.json` beside an adapter.

    Args:
        folder: the adapter's folder.
        base_model: `model_name_or_path` as the user wrote it.
        base_path: the resolved folder of the base.
        template: `template` as trained.
        stacked_adapters: adapters that were merged into the base before this one was trained, in order.
        quantization: how the base was held while training; None: as it is.
    """
    stacked = [{"name": str(path), "fingerprint": fingerprint(path)} for path in stacked_adapters]
    note = {
        "base_model": base_model,
        "base_fingerprint": fingerprint(base_path),
        "template": template,
        "stacked_adapters": stacked,
        "quantization": quantization,
    }
    write_json(folder / PROVENANCE_FILE, note)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """The note beside an adapter, None when it has none (an adapter that was not trained here).

    Raises:
        ModelError: the note is not readable.
    """
    file = folder / PROVENANCE_FILE
    if not file.is_file():
        return None
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not readable JSON ({error}); delete it to use the adapter unchecked") from error
    return note if isinstance(note, dict) else None


def check_provenance(
    adapter_folder: Path, base_path: Path, force: bool = False, *, below: Sequence[Path] | None = None
) -> None:
    """Refuses an adapter that was trained on other weights than those it is put on.

    Args:
        adapter_folder: the adapter.
        base_path: the resolved folder of the base.
        force: `force_base: true` makes a mismatch a warning.
        below: adapters merged before this one, in order; None leaves that unchecked.

    Raises:
        ModelError: the base, or the adapters below, are others than in training.
    """
    note = read_provenance(adapter_folder)
    if note is None:
        return
    problem = ""
    if note.get("base_fingerprint") != fingerprint(base_path):
        problem = f"was trained on {note.get('base_model')}, and the weights in {base_path} are others"
    elif below is not None:
        trained = [entry["fingerprint"] for entry in note.get("stacked_adapters") or []]
        if trained and trained != [fingerprint(path) for path in below]:
            names = ", ".join(entry["name"] for entry in note.get("stacked_adapters") or []) or "no other adapter"
            problem = f"was trained on top of {names}; name the same adapters before it in adapter_name_or_path"
    if not problem:
        return
    if not force:
        raise ModelError(f"the adapter {adapter_folder} {problem}. force_base: true uses it all the same")
    _logger.warning("the adapter %s %s; used all the same (force_base)", adapter_folder, problem)
