"""Do PPO and GRPO learn? The 135M model is rewarded for answers of a wanted length; curves of several seeds.

A run counts as learned when the mean reward of five steps in a row is half above the mean of its first five steps, and
0.1 above it at the least, so that a start near nothing proves nothing.
Each run is `tunesmith train` in a process of its own; it is stopped once it has learned, or when its time is up.
Counted is CPU time of that process, so that a busy machine changes little.

    python benchmarks/rl_toy.py [--seeds 3] [--minutes 15] [--stages grpo ppo]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tunesmith.core.run_state import curves

ROOT = Path(__file__).parent
PROMPTS = [
    "Name a colour.",
    "What do cows eat?",
    "Say hello to a neighbour.",
    "What is a bicycle for?",
    "Where do fish live?",
    "Name something that is round.",
    "What do you do with a spoon?",
    "Why do people sleep?",
    "Name a month.",
    "What falls from clouds?",
    "What is bread made of?",
    "Who repairs shoes?",
    "What do bees make?",
    "Name a tool.",
    "What is the sea?",
    "How does ice feel?",
]
COMMON = {
    "model_name_or_path": "smollm2-135m",
    "template": "auto",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "reward_funcs": "length:20",
    "max_new_tokens": 32,
    "cutoff_len": 64,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 1000,
    "max_steps": 400,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "overwrite_output_dir": True,
}
STAGES = {
    "grpo": {
        "stage": "grpo",
        "num_generations": 8,
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-4,
        "grpo_beta": 0.0,
    },
    "ppo": {
        "stage": "ppo",
        "per_device_train_batch_size": 16,
        "ppo_epochs": 2,
        "ppo_kl_weight": 0.01,
        "learning_rate": 3e-4,
    },
}
WINDOW = 5


def learned_at(rewards: list[float]) -> int | None:
    """The step at which a window's mean is first half above the first window's; None while it is not."""
    if len(rewards) < 2 * WINDOW:
        return None
    start = sum(rewards[:WINDOW]) / WINDOW
    means = [sum(rewards[end - WINDOW : end]) / WINDOW for end in range(2 * WINDOW, len(rewards) + 1)]
    return next((place + 2 * WINDOW for place, mean in enumerate(means) if mean >= max(1.5 * start, start + 0.1)), None)


def run(stage: str, seed: int, cpu_minutes: float, folder: Path) -> dict[str, object]:
    """One training; ends when it has learned, or when its CPU time is used up."""
    data = folder / "prompts.json"
    data.write_text(json.dumps([{"instruction": prompt} for prompt in PROMPTS]))
    output = folder / f"{stage}-{seed}"
    config = COMMON | STAGES[stage] | {"seed": seed, "dataset": str(data), "output_dir": str(output)}
    file = folder / f"{stage}-{seed}.json"
    file.write_text(json.dumps(config))
    with (folder / f"{stage}-{seed}.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "tunesmith", "train", str(file)], stdout=log, stderr=log)
    watched, cpu, started = psutil.Process(child.pid), 0.0, time.monotonic()
    step = None
    while child.poll() is None and step is None and cpu < 60 * cpu_minutes:
        time.sleep(1)
        try:
            cpu = sum(watched.cpu_times()[:2])
        except psutil.NoSuchProcess:
            break
        step = learned_at([value for _, value in curves(output).get("reward", [])])
    child.send_signal(signal.SIGKILL)
    child.wait()
    rewards = [round(value, 4) for _, value in curves(output).get("reward", [])]
    step = learned_at(rewards)
    found = {
        "stage": stage,
        "seed": seed,
        "learned_at_step": step,
        "cpu_minutes": round(cpu / 60, 2),
        "wall_minutes": round((time.monotonic() - started) / 60, 2),
        "first": round(sum(rewards[:WINDOW]) / WINDOW, 4) if rewards else None,
        "last": round(sum(rewards[-WINDOW:]) / WINDOW, 4) if rewards else None,
        "rewards": rewards,
    }
    print({key: value for key, value in found.items() if key != "rewards"}, flush=True)
    return found


def draw(results: list[dict[str, object]], path: Path) -> None:
    """The curves, smoothed, one panel a stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    stages = sorted({str(result["stage"]) for result in results})
    figure, panels = plt.subplots(1, len(stages), figsize=(5 * len(stages), 3.4), squeeze=False, sharey=True)
    for panel, stage in zip(panels[0], stages, strict=True):
        for result in results:
            rewards = result["rewards"]
            if result["stage"] == stage and isinstance(rewards, list):
                parts = [rewards[max(0, end - WINDOW) : end] for end in range(1, len(rewards) + 1)]
                means = [sum(part) / len(part) for part in parts]
                panel.plot(range(1, len(means) + 1), means, label=f"seed {result['seed']}")
        panel.set(title=stage.upper(), xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0][0].set_ylabel("reward, mean of 5 steps")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs every stage with every seed and writes results/rl_toy.json and .png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15, help="CPU minutes of a run")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            run(stage, seed, options.minutes, Path(folder)) for stage in options.stages for seed in range(options.seeds)
        ]
    found = {"task": COMMON | STAGES, "runs": results}
    (ROOT / "results" / "rl_toy.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(results, ROOT / "results" / "rl_toy.png")


if __name__ == "__main__":
    main()
