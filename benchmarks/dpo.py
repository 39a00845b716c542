"""LoRA DPO on a CPU: this project against a straightforward loop with two forward passes and a second model copy.

Same model, same pairs in the same order, same pairs a step, one process each: A B A B. The plain side is what textbooks
write: chosen and rejected answers in one right-padded batch, logits of every position, a frozen copy of the model as
reference. Prints ratios of step time (best, median, paired) and of peak memory, and how far the losses are apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from sft import Timer, matrix_rate, shuffled

MODEL = "smollm2-135m"
BATCH, ACCUMULATION, BETA = 2, 2, 0.1
HERE = Path(__file__).parent
SIDES = ("ours", "plain")


def configuration(folder: str, dataset: str, cutoff_len: int) -> Any:
    from tunesmith.config.schema import RunConfig

    return RunConfig.from_dict(
        {
            "model_name_or_path": MODEL,
            "template": "smollm2",
            "stage": "dpo",
            "do_train": True,
            "dataset": dataset,
            "dataset_dir": str(HERE.parent / "data"),
            "cutoff_len": cutoff_len,
            "output_dir": folder,
            "pref_beta": BETA,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": ACCUMULATION,
            "disable_shuffling": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-4,
            "num_train_epochs": 1,
        }
    )


def start_alike(model: Any) -> None:
    """Gives both sides the same random matrices, so that their losses can be compared step by step."""
    import torch

    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            bound = weight.shape[1] ** -0.5
            weight.data.copy_(torch.rand(weight.shape, generator=generator) * 2 * bound - bound)


def ours(rows: list[dict[str, Any]], config: Any, tokenizer: Any, timer: Timer) -> Any:
    from tunesmith.models.forward import HiddenForward
    from tunesmith.models.load import load_model
    from tunesmith.objectives.dpo import PreferenceObjective
    from tunesmith.training.arguments import training_arguments
    from tunesmith.training.reference import BaseReference
    from tunesmith.training.trainer import StepTrainer

    model = load_model(config, tokenizer, trainable=True)
    start_alike(model)
    forward = HiddenForward(model)
    return StepTrainer(
        objective=PreferenceObjective.build(config),
        forward=forward,
        token_budget=512,
        reference=BaseReference(forward),
        model=model,
        args=training_arguments(config, autocast=None),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[timer.callback()],
    )


def padded(sequences: list[tuple[list[int], list[int]]], pad: int) -> dict[str, Any]:
    import torch

    width = -(-max(len(ids) for ids, _ in sequences) // 8) * 8
    return {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in sequences]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in sequences]),
        "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in sequences]),
    }


def plain(rows: list[dict[str, Any]], config: Any, tokenizer: Any, timer: Timer) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional as F  # noqa: N812
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

    from tunesmith.models.hub import resolve_model

    folder = resolve_model(MODEL).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    set_seed(config.seed)  # the same new adapter on both sides
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=names))
    start_alike(model)

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        sides: list[list[tuple[list[int], list[int]]]] = [[], []]
        for item in items:
            cut = item["seconds"][0]
            sides[0].append((item["input_ids"][:cut], item["labels"][:cut]))
            sides[1].append((item["input_ids"][cut:], item["labels"][cut:]))
        return padded([*sides[0], *sides[1]], tokenizer.pad_token_id)

    def answer_logps(one: Any, inputs: dict[str, Any]) -> Any:
        logits = one(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        labels = inputs["labels"][:, 1:]
        logps = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(-1)
        return (logps * (labels != -100)).sum(dim=1)

    class PlainTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            with torch.no_grad():
                before = answer_logps(reference, inputs)
            ratios = answer_logps(model, inputs) - before
            count = len(ratios) // 2
            return -F.logsigmoid(BETA * (ratios[:count] - ratios[count:])).mean()

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
    trainer = PlainTrainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[timer.callback()]
    )
    trainer.model_accepts_loss_kwargs = False  # the loss is a mean over a batch: transformers divides by accumulation
    return trainer


def worker(side: str, steps: int, dataset: str, cutoff_len: int) -> dict[str, Any]:
    from tunesmith.data.pipeline import prepare
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        config = configuration(folder, dataset, cutoff_len)
        tokenizer = load_tokenizer(config)
        prepared = prepare(config, tokenizer, load_template_for(config, tokenizer))
        rows = shuffled(prepared.train)[: steps * BATCH * ACCUMULATION]
        timer = Timer()
        trainer = (ours if side == "ours" else plain)(rows, config, tokenizer, timer)
        trainer.train()
    assert len(timer.marks) == steps + 1, "the timer must have seen each step once"
    seconds = [after - before for before, after in zip(timer.marks, timer.marks[1:], strict=False)][1:]
    return {
        "side": side,
        "seconds_a_step": sum(seconds) / len(seconds),
        "tokens": sum(len(row["input_ids"]) for row in rows[BATCH * ACCUMULATION :]),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "matrix_gflops": matrix_rate(),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def run_worker(side: str, steps: int, dataset: str, cutoff_len: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", side, "--steps", str(steps)]
    command += ["--dataset", dataset, "--cutoff-len", str(cutoff_len)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summarise(runs: list[dict[str, Any]], setting: dict[str, Any]) -> dict[str, Any]:
    times, peaks = (
        {side: [run[key] for run in runs if run["side"] == side] for side in SIDES}
        for key in ("seconds_a_step", "peak_gib")
    )
    first = {side: next(run["losses"] for run in runs if run["side"] == side) for side in SIDES}
    return {
        "setting": setting,
        "step_time_ratio_best": min(times["ours"]) / min(times["plain"]),
        "step_time_ratio_median": statistics.median(times["ours"]) / statistics.median(times["plain"]),
        "step_time_ratio_paired": [a / b for a, b in zip(times["ours"], times["plain"], strict=True)],
        "memory_ratio": max(peaks["ours"]) / min(peaks["plain"]),
        "peak_gib": {side: max(peaks[side]) for side in SIDES},
        "largest_loss_difference": max(abs(a - b) for a, b in zip(first["ours"], first["plain"], strict=True)),
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=SIDES)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dataset", default="dpo_en_demo")
    parser.add_argument("--cutoff-len", type=int, default=512)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "dpo.json")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.steps, arguments.dataset, arguments.cutoff_len)))
        return
    runs: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for side in SIDES:
            result = run_worker(side, arguments.steps, arguments.dataset, arguments.cutoff_len)
            runs.append(result)
            print(
                f"{repeat + 1}  {side:5}  {result['seconds_a_step']:6.2f} s a step  peak {result['peak_gib']:.2f} GiB",
                flush=True,
            )
    setting = {
        "model": MODEL,
        "dataset": arguments.dataset,
        "pairs_a_batch": BATCH,
        "accumulation": ACCUMULATION,
        "cutoff_len": arguments.cutoff_len,
        "steps": arguments.steps,
    }
    summary = summarise(runs, setting)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in summary.items() if key != "runs"}, indent=2))


if __name__ == "__main__":
    main()
