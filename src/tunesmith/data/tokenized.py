"""`tokenized_path`: a folder of rows ready for training, with the settings that made them; those of `datasets`, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.runs import sync_tree, write_json
from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.flat import pack_arrays
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.report import UNTRAINED, DatasetReport, Reject
from tunesmith.data.rows import RowsBuilder, TokenizedRows
from tunesmith.data.sources import data_files
from tunesmith.data.store import open_rows, write_rows
from tunesmith.data.tokenize import Encoder, is_trained

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.catalog import DatasetSpec

logger = get_logger(__name__)

MANIFEST = "tunesmith_tokenized.json"
_COLUMNS = {
    "conversation": ("input_ids", "labels"),
    "text": ("input_ids", "labels"),
    "preference": ("chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"),
    "feedback": ("input_ids", "labels", "kto_tags"),
}
"""Kind of example -> the columns that LLaMA-Factory writes for it; those of mismatched answers are not needed."""
KEYS = (
    "stage",
    "dataset",
    "eval_dataset",
    "eval_on_each_dataset",
    "cutoff_len",
    "train_on_prompt",
    "mask_history",
    "max_samples",
    "val_size",
    "seed",
    "mix_strategy",
    "interleave_probs",
    "enable_thinking",
    "preserve_thinking",
    "default_system",
    "tool_format",
    "template_compat",
)
"""Keys that decide which rows and tokens are in the folder."""


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What such a folder holds.

    Attributes:
        train: rows to train on, before packing; None where the run that wrote them trained on nothing.
        eval: rows to evaluate on, by name with `eval_on_each_dataset`.
        reports: accounting of each data set.
    """

    train: TokenizedRows | None
    eval: TokenizedRows | dict[str, TokenizedRows] | None
    reports: list[DatasetReport]


def holds_something(path: str | None) -> bool:
    """Whether the folder is there with something in it."""
    folder = Path(path).expanduser() if path else None
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def save(path: str, found: Tokenized, config: RunConfig, encoder: Encoder, specs: list[DatasetSpec]) -> None:
    """Writes the folder; it appears whole or not at all."""
    folder = Path(path).expanduser()
    staged = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    sets = found.eval if isinstance(found.eval, dict) else {"": found.eval}
    names = {f"validation_{name}" if name else "validation": rows for name, rows in sets.items()}
    parts = {name: rows for name, rows in {"train": found.train, **names}.items() if rows is not None}
    for index, rows in enumerate(parts.values()):
        write_rows(staged / str(index), rows, {})
    manifest = {
        "settings": _settings(config),
        "made_from": _versions(encoder),
        "files": {name: cache.hash_file(file) for spec in specs for file, name in data_files(spec)},
        "parts": list(parts),
        "reports": [asdict(report) for report in found.reports],
    }
    write_json(staged / MANIFEST, manifest)
    sync_tree(staged)
    if folder.is_dir():
        folder.rmdir()
    staged.replace(folder)
    logger.info("tokenized_path: the rows are kept in %s", folder)


def load(config: RunConfig, encoder: Encoder, specs: list[DatasetSpec]) -> Tokenized:
    """Reads the folder that `tokenized_path` names.

    Args:
        config: keys that it sets itself must be those of the folder; others are taken as they were.
        encoder: tokenizer and template must be those of the folder.
        specs: data sets that the configuration names; their files must be those of the folder.

    Raises:
        DataError: the folder does not fit, and where.
    """
    folder = Path(config.tokenized_path or "").expanduser()
    if not (folder / MANIFEST).is_file():
        return _load_foreign(folder, KIND_OF_STAGE[config.stage])
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        _compare(manifest, config, encoder, specs, folder)
        parts = {name: open_rows(folder / str(index))[0] for index, name in enumerate(manifest["parts"])}
    except (OSError, ValueError, KeyError) as error:
        fix = "delete the folder; it is made anew from dataset"
        raise DataError([Problem(f"tokenized_path: the folder is damaged: {error}", str(folder), fix)]) from error
    logger.info("tokenized_path: rows taken from %s", folder)
    reports = [cache.report_from(facts) for facts in manifest["reports"]]
    return Tokenized(parts.pop("train", None), _evaluation(parts), reports)


def _evaluation(parts: dict[str, TokenizedRows]) -> TokenizedRows | dict[str, TokenizedRows] | None:
    if not parts or list(parts) == ["validation"]:
        return parts.get("validation")
    return {name.removeprefix("validation_"): rows for name, rows in parts.items()}


def _settings(config: RunConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps({name: getattr(config, name) for name in KEYS}, default=str))
    return settings


def _versions(encoder: Encoder) -> dict[str, str]:
    return {
        "tokenizer": cache.tokenizer_version(encoder.tokenizer),
        "template": cache.template_version(encoder.template),
    }


def _compare(
    manifest: dict[str, Any], config: RunConfig, encoder: Encoder, specs: list[DatasetSpec], folder: Path
) -> None:
    """Holds the configuration against the folder.

    Raises:
        DataError: every key that differs.
    """
    where = str(folder)
    before, now = manifest["settings"], _settings(config)
    problems = [
        Problem(f"tokenized_path: {name} is {now[name]!r} here, the folder was made with {before.get(name)!r}", where)
        for name in KEYS
        if name in config.explicit and before.get(name) != now[name]
    ]
    made = _versions(encoder)
    problems += [
        Problem(f"tokenized_path: the {name} is not the one that the folder was made with", where)
        for name in made
        if manifest["made_from"].get(name) != made[name]
    ]
    known = manifest["files"]
    changed = [name for spec in specs for file, name in data_files(spec) if known.get(name) != cache.hash_file(file)]
    problems += [Problem(f"tokenized_path: dataset: {name} has changed since, or is new", where) for name in changed]
    if problems:
        raise DataError([*problems, Problem("delete the folder, name another one, or mend the keys above", where)])


# -- folders of `datasets` -------------------------------------------------------------------------------------------


def _load_foreign(folder: Path, kind: str) -> Tokenized:
    """A Dataset or DatasetDict on disk with the columns that LLaMA-Factory writes for this kind of example."""
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        what = f"tokenized_path: the folder is not tokenized data: {str(error).splitlines()[0]}"
        raise DataError([Problem(what, str(folder), "name an empty or new folder to write to")]) from error
    splits = dict(found) if isinstance(found, DatasetDict) else {"train": found}
    reports = [DatasetReport(f"{folder.name}/{name}", path=str(folder)) for name in splits]
    parts = {
        name: _convert(split, f"{folder}, {name}", report, kind)
        for (name, split), report in zip(splits.items(), reports, strict=True)
    }
    logger.info("tokenized_path: %s was written by `datasets`: what made these rows cannot be checked", folder)
    return Tokenized(parts.pop("train", None), _evaluation(parts), reports)


def _convert(split: Any, where: str, report: DatasetReport, kind: str) -> TokenizedRows:
    names = _COLUMNS[kind]
    if missing := set(names) - set(split.column_names):
        raise DataError([Problem(f"tokenized_path: no column {', '.join(sorted(missing))}", where)])
    if "position_ids" in split.column_names:
        what = "tokenized_path: the rows were packed by another program; where one ends is not certain"
        raise DataError([Problem(what, where, "tokenize without packing; set packing here")])
    builder, number = RowsBuilder(), 0
    for batch in split.select_columns(list(names)).iter(1000):
        rows = []
        for values in zip(*(batch[name] for name in names), strict=True):
            number += 1
            report.read += 1
            row = _row(values, kind, Source(where, number))
            if is_trained(row):
                rows.append(row)
            else:
                report.reject(Reject(Source(where, number), "labels", UNTRAINED))
        part = pack_arrays(rows)
        report.keep(part)
        builder.add(part)
    return builder.build()


def _row(values: Sequence[Any], kind: str, source: Source) -> TokenizedRow:
    """One row of the columns of a kind.

    Raises:
        DataError: ids and labels are not of one length.
    """
    ids, labels, *rest = values
    pairs = [(ids, labels), tuple(rest)] if kind == "preference" else [(ids, labels)]
    for one, others in pairs:
        if len(one) != len(others):
            what = f"{len(one)} input_ids, {len(others)} labels"
            raise DataError([Problem(f"tokenized_path: {what}", str(source))])
    if kind == "preference":
        return TokenizedRow(ids + rest[0], labels + rest[1], source, second=len(ids))
    return TokenizedRow(ids, labels, source, is_desirable=bool(rest[0]) if rest else True)
