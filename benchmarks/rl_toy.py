"""Do PPO and GRPO learn? The 135M model is rewarded for answers of a wanted length; curves of several seeds.

A run counts as learned when the mean reward of five steps in a row is half above the mean of its first five steps, and
0.1 above it at the least, so that a start near nothing proves nothing.
Each run is `tunesmith train` in a process of its own, on one thread; it is stopped once it has learned, or when its
time is up. Counted is CPU time, so that a busy machine changes little. Results are written after every run.

    python benchmarks/rl_toy.py [--seeds 3] [--minutes 15] [--stages grpo ppo] [--jobs 2]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tunesmith.core.run_state import curves

RESULT = Path(__file__).parent / "results" / "rl_toy.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
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
WISH = "Answer in one short sentence."
"""So that some answers end by themselves from the start: where all are cut, all are rewarded alike."""
COMMON = {
    "model_name_or_path": "smollm2-135m",
    "template": "auto",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "reward_funcs": "length:10",
    "max_new_tokens": 24,
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


def configuration(stage: str, seed: int, folder: Path) -> dict[str, Any]:
    """The keys of a run; its prompts are written."""
    data = folder / "prompts.json"
    data.write_text(json.dumps([{"instruction": f"{prompt} {WISH}"} for prompt in PROMPTS]), encoding="utf-8")
    output = folder / f"{stage}-{seed}"
    return COMMON | STAGES[stage] | {"seed": seed, "dataset": str(data), "output_dir": str(output)}


def rewards_in(output: Path) -> list[float]:
    """The mean reward of each step so far."""
    return [round(value, 4) for _, value in curves(output).get("reward", [])]


class Trial:
    """One training in a process of its own, on one thread.

    Args:
        stage: grpo or ppo.
        seed: of the run.
        folder: for its files.
    """

    def __init__(self, stage: str, seed: int, folder: Path) -> None:
        config = configuration(stage, seed, folder)
        self.stage, self.seed, self.output = stage, seed, Path(config["output_dir"])
        self.log = folder / f"{stage}-{seed}.log"
        file = folder / f"{stage}-{seed}.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "tunesmith", "train", str(file)]
            self.child = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ONE_THREAD)
        self.started, self.cpu_minutes = time.monotonic(), 0.0

    def goes_on(self, cpu_minutes: float) -> bool:
        """Whether it has neither learned nor ended nor used its time up."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.cpu_minutes = sum(psutil.Process(self.child.pid).cpu_times()[:2]) / 60
        is_done = self.cpu_minutes >= cpu_minutes or learned_at(rewards_in(self.output)) is not None
        return self.child.poll() is None and not is_done

    def end(self) -> None:
        self.child.kill()
        self.child.wait()

    def result(self) -> dict[str, Any]:
        """What it came to.

        Raises:
            RuntimeError: it made no step; with the end of its log.
        """
        rewards = rewards_in(self.output)
        if not rewards:
            raise RuntimeError(f"{self.stage}, seed {self.seed}:\n{self.log.read_text(encoding='utf-8')[-2000:]}")
        return {
            "stage": self.stage,
            "seed": self.seed,
            "learned_at_step": learned_at(rewards),
            "cpu_minutes": round(self.cpu_minutes, 2),
            "wall_minutes": round((time.monotonic() - self.started) / 60, 2),
            "first": mean(rewards[:WINDOW]),
            "last": mean(rewards[-WINDOW:]),
            "rewards": rewards,
        }


def mean(numbers: list[float]) -> float:
    return round(sum(numbers) / len(numbers), 4)


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
    plt.close(figure)


def kept_runs(minutes: float) -> list[dict[str, Any]]:
    """Runs of an earlier call at the same task; none where the task was another one."""
    if not RESULT.is_file():
        return []
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    same = found.get("task") == task() and found.get("minutes") == minutes
    return list(found["runs"]) if same else []


def task() -> dict[str, Any]:
    return {"prompts": PROMPTS, "wish": WISH, "window": WINDOW, "common": COMMON, "stages": STAGES}


def write(runs: list[dict[str, Any]], minutes: float) -> None:
    """The results so far, and their picture."""
    runs.sort(key=lambda one: (one["stage"], one["seed"]))
    counts = {stage: [one["learned_at_step"] is not None for one in runs if one["stage"] == stage] for stage in STAGES}
    learned = {stage: f"{sum(marks)} of {len(marks)}" for stage, marks in counts.items()}
    found = {"learned": learned, "minutes": minutes, "task": task(), "runs": runs}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(runs, RESULT.with_suffix(".png"))


def run_all(wanted: list[tuple[str, int]], runs: list[dict[str, Any]], jobs: int, minutes: float) -> None:
    """Runs what is wanted, `jobs` at a time, and writes the results after each."""
    with tempfile.TemporaryDirectory() as folder:
        trials: list[Trial] = []
        try:
            while wanted or trials:
                while wanted and len(trials) < jobs:
                    trials.append(Trial(*wanted.pop(0), Path(folder)))
                time.sleep(1)
                for trial in [one for one in trials if not one.goes_on(minutes)]:
                    trials.remove(trial)
                    trial.end()
                    found = trial.result()
                    runs.append(found)
                    write(runs, minutes)
                    print({key: value for key, value in found.items() if key != "rewards"}, flush=True)
        finally:
            for trial in trials:
                trial.end()


def main() -> None:
    """Runs every stage with every seed; a second call goes on where the first one was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15, help="CPU minutes of a run")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument("--anew", action="store_true", help="forget what an earlier call found")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs = [] if options.anew else kept_runs(options.minutes)
    done = {(one["stage"], one["seed"]) for one in runs}
    wanted = [(stage, seed) for seed in range(options.seeds) for stage in options.stages if (stage, seed) not in done]
    run_all(wanted, runs, options.jobs, options.minutes)


if __name__ == "__main__":
    main()
