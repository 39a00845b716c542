"""LoRA fine-tuning on a CPU: this project's trainer against a plain transformers Trainer with peft, in turn.

Same model, same rows in the same order, same rows a step, one process each: A B A B. Prints ratios of trained tokens a
second (minimum and median over runs) and of peak memory, and the work behind them: tokens computed for each real one,
floating-point operations of a step, and the share of the matrix-product rate measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
BATCH, ACCUMULATION, CUTOFF = 4, 2, 512
HERE = Path(__file__).parent


def configuration(folder: str) -> Any:
    from tunesmith.config.schema import RunConfig

    return RunConfig.from_dict(
        {
            "model_name_or_path": MODEL,
            "template": "smollm2",
            "do_train": True,
            "dataset": "alpaca_en_demo",
            "dataset_dir": str(HERE.parent / "data"),
            "cutoff_len": CUTOFF,
            "output_dir": folder,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "disable_shuffling": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-4,
            "num_train_epochs": 1,
        }
    )


def shuffled(rows: Any, seed: int = 7) -> list[dict[str, Any]]:
    """The rows in one random order for both sides (the file is written by topic)."""
    import random

    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[index] for index in order]


class Timer:
    """Seconds of each optimizer step; the first one warms up and is left out."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        marks = self.marks

        class Callback(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                if not marks:
                    marks.append(time.perf_counter())

            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(time.perf_counter())

        return Callback()


def ours(rows: list[dict[str, Any]], config: Any, tokenizer: Any, timer: Timer) -> tuple[Any, Any]:
    from tunesmith.models.forward import HiddenForward
    from tunesmith.models.load import load_model
    from tunesmith.objectives.sft import SupervisedObjective
    from tunesmith.training.arguments import training_arguments
    from tunesmith.training.trainer import StepTrainer

    model = load_model(config, tokenizer, trainable=True)
    trainer = StepTrainer(
        objective=SupervisedObjective(),
        forward=HiddenForward(model),
        token_budget=512,
        model=model,
        args=training_arguments(config, autocast=None),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[timer.callback()],
    )
    return trainer, lambda: trainer.train()


def plain(rows: list[dict[str, Any]], config: Any, tokenizer: Any, timer: Timer) -> tuple[Any, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from tunesmith.models.hub import resolve_model

    model = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=names))

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(item["input_ids"]) for item in items)
        width = -(-longest // 8) * 8
        pad = tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([i["input_ids"] + [pad] * (width - len(i["input_ids"])) for i in items]),
            "attention_mask": torch.tensor(
                [[1] * len(i["input_ids"]) + [0] * (width - len(i["input_ids"])) for i in items]
            ),
            "labels": torch.tensor([i["labels"] + [-100] * (width - len(i["labels"])) for i in items]),
        }

    arguments = TrainingArguments(
        output_dir=config.output_dir,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=1e-4,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[timer.callback()]
    )
    return trainer, lambda: trainer.train()


def matrix_rate() -> float:
    """fp32 matrix products, GFLOP/s, best of five, at the shape of this model's MLP."""
    import torch

    left, right = torch.randn(512, 576), torch.randn(576, 1536)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(20):
            left @ right
        best = min(best, time.perf_counter() - start)
    return 20 * 2 * 512 * 576 * 1536 / best / 1e9


def worker(side: str, steps: int, count_flops: bool) -> dict[str, Any]:
    from tunesmith.data.pipeline import prepare
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        config = configuration(folder)
        tokenizer = load_tokenizer(config)
        prepared = prepare(config, tokenizer, load_template_for(config, tokenizer))
        rows = shuffled(prepared.train)[: steps * BATCH * ACCUMULATION]
        timer = Timer()
        trainer, train = (ours if side == "ours" else plain)(rows, config, tokenizer, timer)
        flops = 0
        if count_flops:
            from torch.utils.flop_counter import FlopCounterMode

            with FlopCounterMode(display=False) as counter:
                train()
            flops = counter.get_total_flops()
        else:
            train()
    assert len(timer.marks) == steps + 1, "the timer must have seen each step once"
    seconds = [after - before for before, after in zip(timer.marks, timer.marks[1:], strict=False)][1:]
    per_step = BATCH * ACCUMULATION
    used = rows[per_step:]
    real = sum(len(row["input_ids"]) for row in used)
    trained = sum(label != -100 for row in used for label in row["labels"][1:])
    padded = 0
    for start in range(0, len(used), BATCH):
        group = used[start : start + BATCH]
        padded += len(group) * -(-max(len(row["input_ids"]) for row in group) // 8) * 8
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "side": side,
        "seconds": sum(seconds),
        "trained_tokens_per_second": trained / sum(seconds),
        "trained_tokens": trained,
        "real_tokens": real,
        "computed_tokens_per_real": 1.0 if side == "ours" else padded / real,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "flops_all_steps": flops,
        "matrix_gflops": matrix_rate(),
        "losses": losses,
    }


def run_worker(side: str, steps: int, *flags: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", side, "--steps", str(steps), *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=("ours", "plain"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sft.json")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.steps, arguments.flops)))
        return
    runs: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for side in ("ours", "plain"):
            result = run_worker(side, arguments.steps)
            runs.append(result)
            print(
                f"{repeat + 1}  {side:5}  {result['trained_tokens_per_second']:7.1f} trained tokens/s  "
                f"peak {result['peak_gib']:.2f} GiB  {result['computed_tokens_per_real']:.2f} tokens per real one",
                flush=True,
            )
    flops = {side: run_worker(side, 3, "--flops")["flops_all_steps"] for side in ("ours", "plain")}

    def pick(side: str, key: str) -> list[float]:
        return [run[key] for run in runs if run["side"] == side]

    speed = {side: pick(side, "trained_tokens_per_second") for side in ("ours", "plain")}
    work = {side: flops[side] / 3 for side in flops}
    real_per_step = runs[0]["real_tokens"] / (arguments.steps - 1)
    summary = {
        "setting": {"model": MODEL, "batch": BATCH, "accumulation": ACCUMULATION, "cutoff_len": CUTOFF},
        "speed_ratio_best": max(speed["ours"]) / max(speed["plain"]),
        "speed_ratio_median": statistics.median(speed["ours"]) / statistics.median(speed["plain"]),
        "speed_ratio_paired": [a / b for a, b in zip(speed["ours"], speed["plain"], strict=True)],
        "memory_ratio": max(pick("ours", "peak_gib")) / min(pick("plain", "peak_gib")),
        "peak_gib": {side: max(pick(side, "peak_gib")) for side in ("ours", "plain")},
        "padding": {side: pick(side, "computed_tokens_per_real")[0] for side in ("ours", "plain")},
        "gflop_per_step": {side: work[side] / 1e9 for side in work},
        "flop_ratio": work["ours"] / work["plain"],
        "real_tokens_per_step": real_per_step,
        "largest_loss_difference": max(abs(a - b) for a, b in zip(runs[0]["losses"], runs[1]["losses"], strict=True)),
        "matrix_gflops": [run["matrix_gflops"] for run in runs],
        "runs": runs,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in summary.items() if key != "runs"}, indent=2))


if __name__ == "__main__":
    main()
