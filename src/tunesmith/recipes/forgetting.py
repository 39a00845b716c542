"""`tunesmith eval --forgetting`: the bundled probe on the model before and after tuning, and a verdict."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import ModelError
from tunesmith.core.journal import Journal
from tunesmith.core.runs import Run, write_atomic, write_json
from tunesmith.evaluation.forgetting import judge, table_lines
from tunesmith.evaluation.probe_items import ProbeItem, ProbeScore, ask_probe, load_probe
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.recipes.model_digest import stored_digest

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

PROBE_FILE = "probe.jsonl"
RESULT_FILE = "forgetting.json"
BEFORE, AFTER = "before", "after"


def forgetting(config: RunConfig, folder: Path | None) -> dict[str, Any]:
    """Asks both models, prints the verdict and writes it.

    Args:
        config: the tuned model: a base with its adapters, or a whole model beside `ref_model`.
        folder: takes every score as it comes, so that a killed run goes on; None: nothing is written.

    Returns:
        Facts for the run's events.

    Raises:
        TunesmithError: a model cannot be had, or the folder holds other results.
    """
    probing = Probing({BEFORE: before_tuning(config), AFTER: config}, load_probe(), folder)
    before, after = probing.run()
    verdict = judge(before, after)
    sys.stdout.write("\n".join(table_lines(verdict)) + "\n")
    if folder is not None:
        write_json(folder / RESULT_FILE, {**probing.about(), **verdict.as_json(), "items": item_rows(before, after)})
        write_atomic(folder / "results.log", "\n".join(table_lines(verdict)) + "\n")
    return {"verdict": verdict.words, "loss": round(verdict.losses[0].loss, 4), "forgotten": list(verdict.forgotten)}


def before_tuning(config: RunConfig) -> RunConfig:
    """The model that tuning began with: `ref_model`, or the base without its adapters."""
    if config.ref_model:
        return config.replace(model_name_or_path=config.ref_model, adapter_name_or_path=[])
    return config.replace(adapter_name_or_path=[])


@dataclass(slots=True)
class Probing:
    """The probe asked of two models, one after the other.

    Attributes:
        models: before and after, as configurations.
        items: what is asked.
        folder: where scores are kept, and found by a later run; None: nowhere.
    """

    models: Mapping[str, RunConfig]
    items: Sequence[ProbeItem]
    folder: Path | None = None

    def run(self) -> tuple[dict[str, ProbeScore], dict[str, ProbeScore]]:
        """The scores before and after, by the items' ids, in their order.

        Raises:
            ModelError: the models have different tokens.
        """
        scores: dict[str, dict[str, ProbeScore]] = {side: {} for side in self.models}
        journal = self._journal()
        with closing(journal) if journal else nullcontext():
            for row in journal.begin(2 * len(self.items)) if journal else ():
                scores[row["model"]][row["id"]] = ProbeScore.of_row(row)
            self._ask(scores, journal)
        before, after = ({item.id: found[item.id] for item in self.items} for found in scores.values())
        if any(before[item.id].n_tokens != after[item.id].n_tokens for item in self.items):
            raise ModelError("the two models write texts in different tokens: their log-probabilities say nothing")
        return before, after

    def _ask(self, scores: dict[str, dict[str, ProbeScore]], journal: Journal | None) -> None:
        """Loads each model, asks what is missing, and lets it go before the next is loaded."""
        from tunesmith.inference.opening import open_engine
        from tunesmith.models.tokenizer import load_tokenizer

        with ProgressBar("probe", 2 * len(self.items), run=Run(self.folder) if self.folder else None) as bar:
            for side, config in self.models.items():
                missing = [item for item in self.items if item.id not in scores[side]]
                if not missing:
                    continue
                tokenizer = load_tokenizer(config)
                engine = open_engine(config, tokenizer, batch_size=config.batch_size).engine
                for score in ask_probe(engine, tokenizer, missing):
                    scores[side][score.id] = score
                    if journal is not None:
                        journal.append({"model": side, **score.as_row()})
                    bar.show(sum(map(len, scores.values())), side)
                del engine
                gc.collect()

    def _journal(self) -> Journal | None:
        if self.folder is None:
            return None
        texts = [[item.id, item.prompt, item.answers] for item in self.items]
        identity = [[stored_digest(config) for config in self.models.values()], texts]
        return Journal(self.folder / PROBE_FILE, hashlib.sha256(json.dumps(identity).encode()).hexdigest())

    def about(self) -> dict[str, Any]:
        """The models by name."""
        named = {
            side: {"model": config.model_name_or_path, "adapters": list(config.adapter_name_or_path)}
            for side, config in self.models.items()
        }
        return {"models": named}


def item_rows(before: Mapping[str, ProbeScore], after: Mapping[str, ProbeScore]) -> list[dict[str, Any]]:
    """Each item as it is written."""
    return [
        {
            "id": name, "field": old.field, "before": round(old.worth, 6), "after": round(after[name].worth, 6),
            "right_before": old.is_right, "right_after": after[name].is_right,
        }
        for name, old in before.items()
    ]  # fmt: skip
