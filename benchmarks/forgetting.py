"""Verdicts of `tunesmith eval --forgetting` on the real 135M model: an over-fit, null runs, ordinary and harsh ones.

Half of the null runs are short LoRA runs, each with its own seed; the other half are random steps, weight for
weight as long as such a run's. None of them should be flagged; the run that over-fits should. Ordinary and harsh runs
are shown. Writes results/forgetting.json after every run; what stands there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
MODEL = "smollm2-135m"
NULL = {"dataset": "alpaca_en_demo", "learning_rate": 1e-4, "max_steps": 10}
RUNS: dict[str, dict[str, Any]] = {
    "overfit, 4 rows": {"dataset": "identity", "max_samples": 4, "learning_rate": 1e-2, "max_steps": 20},
    "ordinary, identity": {"dataset": "identity", "learning_rate": 1e-4, "max_steps": 60},
    "ordinary, alpaca": {"dataset": "alpaca_en_demo", "learning_rate": 1e-4, "max_steps": 60},
    "harsh, 8 rows": {"dataset": "identity", "max_samples": 8, "learning_rate": 2e-3, "max_steps": 60},
    "harsh, high rate": {"dataset": "alpaca_en_demo", "learning_rate": 5e-3, "max_steps": 60},
}
Scores = dict[str, Any]


def config_of(folder: Path | None = None) -> Any:
    from tunesmith.config.schema import RunConfig

    keys: dict[str, Any] = {"model_name_or_path": MODEL, "infer_dtype": "float32", "batch_size": 16}
    return RunConfig.from_dict(keys | ({"adapter_name_or_path": [str(folder)]} if folder else {}), command="eval")


def probe(folder: Path | None = None, change: Callable[[Any], None] = lambda model: None) -> Scores:
    """Scores of the base, of an adapter on it, or of the base after a change of its weights."""
    from tunesmith.evaluation.probe_items import ask_probe, load_probe
    from tunesmith.inference.opening import open_model
    from tunesmith.models.load import load_model
    from tunesmith.models.tokenizer import load_tokenizer

    config = config_of(folder)
    tokenizer = load_tokenizer(config)
    model = load_model(config, tokenizer, trainable=False)
    change(model)  # before it is opened: an engine packs weights, and would not see it
    opened = open_model(config, batch_size=config.batch_size, model=model, tokenizer=tokenizer)
    return {score.id: score for score in ask_probe(opened.engine, tokenizer, load_probe())}


def train(folder: Path, seed: int, keys: dict[str, Any]) -> None:
    """A LoRA run through the command line's own entry."""
    from tunesmith.cli.main import main

    base = {
        "model_name_or_path": MODEL, "template": "smollm2", "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "dataset_dir": str(HERE.parent / "data"), "cutoff_len": 128, "per_device_train_batch_size": 4,
        "max_samples": 200, "seed": seed, "output_dir": str(folder), "save_strategy": "no", "logging_steps": 20,
    }  # fmt: skip
    status = main(["train", *(f"{name}={value}" for name, value in (base | keys).items())])
    if status:
        raise SystemExit(f"training failed: {status}")


def random_step(folder: Path, seed: int) -> Callable[[Any], None]:
    """Moves every weight matrix that an adapter changes at random, as far as the adapter moves it."""
    from tunesmith.models.load import load_model
    from tunesmith.models.tokenizer import load_tokenizer

    config = config_of(folder)
    live: Any = load_model(config, load_tokenizer(config), trainable=False)
    tuned = live.merge_and_unload().state_dict()

    def change(model: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        n_moved = 0
        for name, weight in model.state_dict().items():
            length = (tuned[name] - weight).norm()
            if length > 0:
                step = torch.randn(weight.shape, generator=generator)
                weight += step * (length / step.norm())
                n_moved += 1
        assert n_moved > 20, "the adapter is on the model for good, under the names of the base"

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nulls", type=int, default=20)
    parser.add_argument("--steps", type=int, default=None, help="instead of those of each run")
    parser.add_argument("--adapters", type=Path, default=None, help="folder that keeps them; default: none does")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "forgetting.json")
    args = parser.parse_args()
    from tunesmith.evaluation.forgetting import FORGOTTEN, judge

    args.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    before = probe()
    seconds = time.perf_counter() - started
    print(f"the probe takes {seconds:.1f} s a model", flush=True)
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {"runs": {}}
    found: dict[str, Any] = known["runs"]

    def note(name: str, after: Scores) -> None:
        verdict = judge(before, after)
        found[name] = verdict.as_json()
        whole = verdict.losses[0]
        fields = ", ".join(f"{one.field} {one.loss:+.3f}" for one in verdict.losses[1:])
        print(
            f"{name}: {verdict.words}; {whole.loss:+.4f} ({whole.low:+.4f} to {whole.high:+.4f}); {fields}", flush=True
        )
        flagged = {kind: [n for n, one in found.items() if n.startswith(kind) and one["verdict"] == FORGOTTEN]
                   for kind in ("null", "ordinary", "harsh", "overfit")}  # fmt: skip
        counts = {kind: sum(n.startswith(kind) for n in found) for kind in flagged}
        result = {
            "model": MODEL, "counts": counts, "flagged": flagged, "runs": found,
        }  # fmt: skip
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    short = {} if args.steps is None else {"max_steps": args.steps}
    with nullcontext(args.adapters) if args.adapters else tempfile.TemporaryDirectory() as place:

        def look_at(name: str) -> None:
            if name in found:
                return
            folder = Path(place) / name.replace(", ", "-").replace(" ", "-")
            train(folder, 1, RUNS[name] | short)
            note(name, probe(folder))

        overfit, *others = RUNS
        look_at(overfit)
        for seed in range(args.nulls // 2):
            names = f"null, run {seed}", f"null, random step {seed}"
            folder = Path(place) / f"null-{seed}"
            if any(name not in found for name in names) and not (folder / "adapter_model.safetensors").is_file():
                train(folder, seed, NULL | short)
            if names[0] not in found:
                note(names[0], probe(folder))
            if names[1] not in found:
                after = probe(None, random_step(folder, seed))
                assert any(after[key] != before[key] for key in before), "the step reached the model that is asked"
                note(names[1], after)
        for name in others:
            look_at(name)


if __name__ == "__main__":
    main()
