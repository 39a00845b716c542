"""dataset_info.json -> DatasetSpec: which file a data set name means and how its rows are laid out. Reads no rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tunesmith
from tunesmith.core import env
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.lazy import nearest
from tunesmith.core.log import get_logger

logger = get_logger(__name__)

INFO_FILE = "dataset_info.json"
DEFAULT_DIR = "data"
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt")
FORMATTINGS = ("alpaca", "sharegpt", "openai")
ONLINE, REMOTE = "ONLINE", "REMOTE:"
ENTRY_KEYS = (
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
    "script_url",
    "cloud_file_name",
    "file_name",
    "formatting",
    "ranking",
    "subset",
    "split",
    "num_samples",
    "folder",
    "columns",
    "tags",
)
_Block = TypeVar("_Block", "Columns", "Tags")
EXAMPLE_ENTRY = '{"my_data": {"file_name": "my_data.json"}}'


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a file holds what; None: the data set has no such column."""

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None
    tools: str | None = None
    images: str | None = None
    videos: str | None = None
    audios: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None
    weight: str | None = None


@dataclass(frozen=True, slots=True)
class Tags:
    """The keys of a message object and the names of its roles."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    observation_tag: str = "observation"
    function_tag: str = "function_call"
    system_tag: str = "system"


DEFAULT_COLUMNS = Columns(prompt="instruction", query="input", response="output", messages="conversations")
OPENAI_COLUMNS = Columns(messages="messages", tools="tools")
OPENAI_TAGS = Tags(
    role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", observation_tag="tool"
)


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a data set is fetched from.

    Attributes:
        kind: hf, ms, om (hubs), cloud (an address of fsspec), or hf_file (one file of a repository).
        url: repository or address.
        subset: configuration of the repository.
        folder: folder in the repository; with hf_file the file.
        download_mode: as of `datasets`, with hf alone; None: its default.
    """

    kind: str
    url: str
    subset: str | None = None
    folder: str | None = None
    download_mode: str | None = None

    @property
    def is_hub(self) -> bool:
        """Whether it has splits of its own."""
        return self.kind in ("hf", "ms", "om")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One data set as the pipeline needs it.

    Attributes:
        name: as in `dataset`.
        path: file, or folder of files of one type; of a remote set its address, for messages.
        formatting: alpaca, sharegpt, openai, completion (`prompt`, `completion`), text, or auto: read off the rows.
        ranking: rows hold a chosen and a rejected answer.
        split: `train`, or slices of it such as `train[:2]`, `train[10%:20%]`.
        num_samples: exactly this many rows, drawn by a seeded permutation.
        has_columns: the entry has a `columns` block.
        remote: where it is fetched from; None: it is on this machine.
        files: a remote set's files once they are here, each with the name that messages call it by.
    """

    name: str
    path: Path
    formatting: str = "alpaca"
    ranking: bool = False
    split: str = "train"
    num_samples: int | None = None
    columns: Columns = DEFAULT_COLUMNS
    tags: Tags = Tags()
    has_columns: bool = False
    remote: Remote | None = None
    files: tuple[tuple[Path, str], ...] = ()


def bundled_dir() -> Path | None:
    """The data sets that come with Tunesmith: inside the installed package, or `data/` of an editable checkout."""
    package = Path(tunesmith.__file__).parent
    for folder in (package / "bundled" / "data", package.parents[1] / "data"):
        if (folder / INFO_FILE).is_file():
            return folder
    return None


def find_dataset_dir(dataset_dir: str) -> Path:
    """The folder that holds dataset_info.json; for the default `data` the packaged copy stands in.

    Raises:
        DataError: neither has a dataset_info.json.
    """
    folder = Path(dataset_dir).expanduser()
    if (folder / INFO_FILE).is_file():
        return folder
    if dataset_dir.rstrip("/\\") == DEFAULT_DIR and (bundled := bundled_dir()):
        return bundled
    raise DataError(
        [
            Problem(
                f"dataset_dir has no {INFO_FILE}",
                str(folder),
                f"create it, such as {EXAMPLE_ENTRY}, or give the path of a data file as `dataset`",
            )
        ]
    )


def read_info(folder: Path) -> dict[str, Any]:
    """The whole of dataset_info.json.

    Raises:
        DataError: not UTF-8, not JSON (with the line), or not an object of entries.
    """
    path = folder / INFO_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
        info = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(
            [Problem(f"not UTF-8 text ({error.reason} at byte {error.start})", str(path), "save it as UTF-8")]
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            [
                Problem(
                    f"not valid JSON: {error.msg} (column {error.colno})", f"{path}:{error.lineno}", _json_advice(text)
                )
            ]
        ) from error
    if not isinstance(info, dict):
        raise DataError(
            [Problem("its top level must be an object of named entries", f"{path}:1", f"write it as {EXAMPLE_ENTRY}")]
        )
    return info


def _json_advice(text: str) -> str:
    if text.lstrip().startswith("["):
        return f"the outer brackets must be {{ }}, not [ ], and no comma may follow the last entry: {EXAMPLE_ENTRY}"
    return f"a comma stands between two entries, none after the last; the whole looks like {EXAMPLE_ENTRY}"


def resolve(
    names: tuple[str, ...] | list[str], dataset_dir: str, token: str | None = None, *, quiet: bool = False
) -> list[DatasetSpec]:
    """The specs of all `names`, in order; a name given twice is used twice, and that is said.

    Args:
        names: of `dataset` or `eval_dataset`.
        dataset_dir: folder of dataset_info.json; ONLINE: names are repositories of a hub; `REMOTE:repo`: the folder is
            that repository.
        token: of the hub, for REMOTE.
        quiet: tells nothing, for who only looks whether it can be done.

    Raises:
        DataError: every unknown or unusable name at once.
    """
    specs: list[DatasetSpec] = []
    problems: list[Problem] = []
    for name in sorted({name for name in names if names.count(name) > 1 and not quiet}):
        logger.info("dataset: %s is named %d times and is used %d times", name, names.count(name), names.count(name))
    if dataset_dir == ONLINE:
        return [_online(name) for name in names]
    folder: Path | None = None
    info: dict[str, Any] = {}
    repo = dataset_dir.removeprefix(REMOTE) if dataset_dir.startswith(REMOTE) else None
    if repo is not None:
        from tunesmith.data.hubs import fetch_file

        folder = fetch_file(repo, INFO_FILE, token).parent
    elif any(not is_file_name(name) for name in names) or (Path(dataset_dir) / INFO_FILE).is_file():
        folder = find_dataset_dir(dataset_dir)
        if folder != (asked := Path(dataset_dir).expanduser()) and not quiet:
            logger.info("dataset_dir: no %s here, so the packaged data sets are used: %s", asked / INFO_FILE, folder)
    if folder is not None:
        info = read_info(folder)
    for name in names:
        try:
            specs.append(_resolve_one(name, info, folder or Path(dataset_dir), repo))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return specs


def _online(name: str) -> DatasetSpec:
    path = Path(name).expanduser()
    if is_file_name(name) and path.exists():
        return DatasetSpec(name, path, formatting="auto")
    return DatasetSpec(name, Path(name), formatting="auto", remote=Remote(_preferred_hub(), name))


def _preferred_hub() -> str:
    """The hub that USE_MODELSCOPE_HUB or USE_OPENMIND_HUB asks for; else Hugging Face."""
    switches = {"ms": "USE_MODELSCOPE_HUB", "om": "USE_OPENMIND_HUB"}
    return next((kind for kind, variable in switches.items() if env.switch(variable)), "hf")


def is_file_name(name: str) -> bool:
    """Whether `name` reads like the path of a data file, not like a name in dataset_info.json."""
    return Path(name).suffix.lower() in SUFFIXES


def _resolve_one(name: str, info: dict[str, Any], folder: Path, repo: str | None = None) -> DatasetSpec:
    if name in info:
        return parse_entry(name, info[name], folder, repo)
    for path in (Path(name).expanduser(), folder / name):
        if path.exists() and (is_file_name(name) or path.is_dir()):
            return DatasetSpec(name, path, formatting="auto")
    if is_file_name(name):
        around = Path(name).expanduser().parent
        near = nearest(Path(name).name, [entry.name for entry in around.iterdir()] if around.is_dir() else [])
        hint = f"did you mean {around / near}? " if near else ""
        raise DataError([Problem(f"no such file: {name}", "dataset", f"{hint}looked here and in {folder}")])
    if Path(name).expanduser().is_file():
        kinds = ", ".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES))
        raise DataError([Problem(f"{name} has no ending that says how to read it", "dataset", f"known: {kinds}")])
    close = nearest(name, info)
    hint = f"did you mean {close}? " if close else ""
    known = ", ".join(sorted(info)) or "none"
    raise DataError([Problem(f"unknown data set: {name}", "dataset", f"{hint}{folder / INFO_FILE} has: {known}")])


def parse_entry(name: str, entry: Any, folder: Path, repo: str | None = None) -> DatasetSpec:
    """One entry of dataset_info.json as a spec.

    With a `columns` block the names that it does not list are null, as in LLaMA-Factory (`columns: {prompt: text}`
    means no query and no response); without one the defaults hold. `tags` fall back key by key.

    Raises:
        DataError: unknown keys, wrong types, a script, or no such file.
    """
    where = f"{folder / INFO_FILE}, entry {name!r}"
    if not isinstance(entry, dict):
        raise DataError([Problem("an entry must be an object", where, f"write it as {EXAMPLE_ENTRY}")])
    problems = [_unknown(key, ENTRY_KEYS, where) for key in entry if key not in ENTRY_KEYS]
    formatting = entry.get("formatting") or "alpaca"
    if formatting not in FORMATTINGS:
        problems.append(Problem(f"formatting {formatting!r} is not known", where, f"one of: {', '.join(FORMATTINGS)}"))
    is_openai = formatting == "openai"
    tags = _block(entry, "tags", OPENAI_TAGS if is_openai else Tags(), where, problems)
    columns = _block(entry, "columns", Columns(), where, problems)
    has_columns = entry.get("columns") is not None
    if not has_columns:
        columns = OPENAI_COLUMNS if is_openai else DEFAULT_COLUMNS
        if entry.get("ranking"):
            columns = replace(columns, chosen="chosen", rejected="rejected")
    num_samples = entry.get("num_samples")
    if num_samples is not None and (
        isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1
    ):
        problems.append(Problem(f"num_samples must be a whole number above 0, not {num_samples!r}", where))
    path, remote = _entry_place(entry, folder, repo, where, problems)
    if problems:
        raise DataError(problems)
    return DatasetSpec(
        name,
        path,
        formatting,
        bool(entry.get("ranking")),
        entry.get("split") or "train",
        num_samples,
        columns,
        tags,
        has_columns,
        remote,
    )


def _entry_place(
    entry: dict[str, Any], folder: Path, repo: str | None, where: str, problems: list[Problem]
) -> tuple[Path, Remote | None]:
    """The local file or folder, or where the set is fetched from; a local file that is there wins."""
    file_name = str(entry.get("file_name") or "")
    path = folder / Path(file_name).expanduser()
    if file_name and path.exists():
        return path, None
    subset, inside = entry.get("subset"), entry.get("folder")
    kinds = {"hf": "hf_hub_url", "ms": "ms_hub_url", "om": "om_hub_url"}
    given = {kind: str(entry[key]) for kind, key in kinds.items() if entry.get(key)}
    if given:
        wanted = _preferred_hub()
        kind = wanted if wanted in given else next(iter(given))
        return Path(given[kind]), Remote(kind, given[kind], subset, inside)
    if entry.get("cloud_file_name"):
        address = str(entry["cloud_file_name"])
        return Path(address), Remote("cloud", address)
    if entry.get("script_url"):
        what = "script_url: a loading script is code that would run on this machine, and `datasets` 4 dropped them"
        problems.append(Problem(what, where, "save the rows as json or parquet and name them with file_name"))
    elif file_name and repo is not None:
        return Path(repo) / file_name, Remote("hf_file", repo, folder=file_name)
    elif file_name:
        fix = f"put it there; file_name is looked up in {folder}"
        problems.append(Problem(f"file_name: no such file or folder: {path}", where, fix))
    else:
        problems.append(Problem("the entry names no file", where, f"add file_name: {EXAMPLE_ENTRY}"))
    return folder, None


def _block(entry: dict[str, Any], key: str, default: _Block, where: str, problems: list[Problem]) -> _Block:
    value = entry.get(key)
    if value is None:
        return default
    if not isinstance(value, dict):
        problems.append(Problem(f"{key} must be an object of names", where))
        return default
    known = [field.name for field in fields(default)]
    problems += [_unknown(name, known, f"{where}, {key}") for name in value if name not in known]
    problems += [
        Problem(f"{name} must be text, not {given!r}", f"{where}, {key}")
        for name, given in value.items()
        if given is not None and not isinstance(given, str)
    ]
    return replace(
        default, **{name: given for name, given in value.items() if name in known and isinstance(given, str) and given}
    )


def _unknown(name: str, known: tuple[str, ...] | list[str], where: str) -> Problem:
    close = nearest(str(name), known)
    hint = f"did you mean {close}? " if close else ""
    return Problem(f"unknown key {name!r}", where, f"{hint}known: {', '.join(known)}")
