"""Log-probabilities of the untrained model, computed once before the first step and kept on disk.

With full and freeze tuning the reference is the model as it was, so after the first step there is nothing to ask any
more. A second copy would double the memory; numbers for the trained tokens of each row take four bytes a token.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.core import env
from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import Lock, write_atomic
from tunesmith.data.cache import digest
from tunesmith.data.progress import progress
from tunesmith.models.provenance import weights_digest
from tunesmith.objectives.base import REFERENCE_LOGPS, Scored
from tunesmith.training.batches import Row, collate, lay_end_to_end, line_length, plan_micro_batches

SHARD_ITEMS = 512
"""Items after which what was computed is made to last."""
STATE, VALUES = "state.json", "logps.bin"
logger = get_logger(__name__)


class KeptLogps:
    """The reference's log-probabilities of all trained tokens of a data set, item by item.

    Attributes:
        values: (N,) float32 in nats, in the order of items, of rows in an item, of sequences in a row.
        starts: where each item's numbers begin; one more than there are items.
    """

    def __init__(self, values: Any, counts: Sequence[int]) -> None:
        self.values = values
        self.starts = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])

    def of_item(self, index: int) -> list[float]:
        """The numbers of one item."""
        found: list[float] = self.values[self.starts[index] : self.starts[index + 1]].tolist()
        return found


class ReferencedRows:
    """A data set whose items carry what the reference says of them.

    Args:
        rows: items of one row each.
        logps: of the same items.
    """

    def __init__(self, rows: Any, logps: KeptLogps) -> None:
        self.rows_without = rows
        self.logps = logps

    def __len__(self) -> int:
        return len(self.rows_without)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.rows_without[index]
        return {**item, "columns": {REFERENCE_LOGPS: [self.logps.of_item(range(len(self))[index])]}}

    def __getattr__(self, name: str) -> Any:
        if name == "rows_without":  # not there yet while a copy is unpickled
            raise AttributeError(name)
        return getattr(self.rows_without, name)


def keep_reference(trainer: Any) -> None:
    """Gives the trainer's rows what its model, as it is now, says of them; from disk where that is known.

    Args:
        trainer: before its first step, and before a checkpoint is loaded into its model.
    """
    model_key = weights_digest(trainer.model)
    if trainer.train_dataset is not None:
        trainer.train_dataset = _referenced(trainer, trainer.train_dataset, model_key)
    sets = trainer.eval_dataset
    if isinstance(sets, dict):
        trainer.eval_dataset = {name: _referenced(trainer, rows, model_key) for name, rows in sets.items()}
    elif sets is not None:
        trainer.eval_dataset = _referenced(trainer, sets, model_key)


def _referenced(trainer: Any, rows: Any, model_key: str) -> ReferencedRows:
    """The rows with their numbers, by the hash of weights, tokens (so of tokenizer, template, data) and format."""
    key = digest(model_key, rows.digest(), str(trainer.args.device.type), str(trainer.half))
    folder = env.home() / "reference" / key
    lock = Lock(folder.with_suffix(".lock"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    waits = False
    while not lock.take():
        if not waits:
            logger.info("reference: another process computes the same log-probabilities; waiting for it")
        waits = True
        time.sleep(0.2)
    try:
        return ReferencedRows(rows, _Keeper(folder, trainer, rows).logps())
    finally:
        lock.release()


class _Keeper:
    """Computes what a folder lacks; what a stopped process finished there is gone on from."""

    def __init__(self, folder: Path, trainer: Any, rows: Any) -> None:
        self._folder, self._trainer, self._rows = folder, trainer, rows

    def logps(self) -> KeptLogps:
        """All numbers, from disk or made now."""
        counts, values = self._known()
        if len(counts) == len(self._rows):
            logger.info("reference: log-probabilities of %d rows taken from %s", len(counts), self._folder)
            return KeptLogps(np.frombuffer(values, dtype=np.float32), counts)
        started, before = time.monotonic(), len(counts)
        self._folder.mkdir(parents=True, exist_ok=True)
        with progress("reference log-probabilities") as advance:
            for new_counts, new_values in self._compute(len(counts)):
                counts, values = counts + new_counts, values + new_values
                self._save(counts, values, new_values)
                advance(len(new_counts))
        logger.info(
            "reference: log-probabilities of %d rows computed in %.1f s, kept in %s",
            len(counts) - before,
            time.monotonic() - started,
            self._folder,
        )
        return KeptLogps(np.frombuffer(values, dtype=np.float32), counts)

    def _known(self) -> tuple[list[int], bytes]:
        """What is on disk and whole."""
        try:
            state = json.loads((self._folder / STATE).read_text(encoding="utf-8"))
            counts = [int(count) for count in state["counts"]]
            values = (self._folder / VALUES).read_bytes()[: 4 * sum(counts)]
            if len(values) != 4 * sum(counts) or zlib.crc32(values) != state["crc"]:
                raise ValueError(f"{VALUES} is damaged")
        except FileNotFoundError:
            return [], b""
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "the reference log-probabilities in %s are damaged (%s) and are made anew", self._folder, error
            )
            return [], b""
        return counts, values

    def _save(self, counts: list[int], values: bytes, new: bytes) -> None:
        """Appends; what `state.json` does not count is no part of the file."""
        import os

        path = self._folder / VALUES
        with path.open("r+b" if path.exists() else "wb") as handle:
            handle.truncate(len(values) - len(new))
            handle.seek(0, os.SEEK_END)
            handle.write(new)
            handle.flush()
            os.fsync(handle.fileno())
        write_atomic(self._folder / STATE, json.dumps({"counts": counts, "crc": zlib.crc32(values)}))

    def _compute(self, first: int) -> Iterator[tuple[list[int], bytes]]:
        """Numbers of the items from `first` on, a shard at a time."""
        trainer = self._trainer
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            for start in range(first, len(self._rows), SHARD_ITEMS):
                rows = []
                for index in range(start, min(start + SHARD_ITEMS, len(self._rows))):
                    (row,) = collate([self._rows[index]]).rows
                    rows.append(row)
                found = self._of_rows(rows)
                yield [len(part) for part in found], np.concatenate(found).astype(np.float32).tobytes()
        finally:
            trainer.model.train(was_training)

    @torch.no_grad()
    def _of_rows(self, rows: Sequence[Row]) -> list[Any]:
        trainer, forward = self._trainer, self._trainer.hidden_forward
        budget = trainer.token_budget if forward.lays_rows_end_to_end else 1
        found: list[Any] = [None] * len(rows)
        shares = trainer.objective.example_kind == "preference" and forward.can_share(trainer.model)
        for group in plan_micro_batches([line_length(row, shares=shares) for row in rows], budget):
            members = [rows[index] for index in group]
            batch = lay_end_to_end(members, shares=shares).to(trainer.args.device)
            with trainer.compute_loss_context_manager():
                logps = Scored(forward(trainer.model, batch), forward.head, batch.targets).per_token_logps()
            parts = logps.float().cpu().split([row.n_trained for row in members])
            for index, part in zip(group, parts, strict=True):
                if not torch.isfinite(part).all():
                    where = self._rows.source(rows[index].number)
                    raise TrainingError(f"the reference gives no finite log-probability to {where}")
                found[index] = part.numpy()
        return found
