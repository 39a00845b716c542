"""Multiple choice: questions a second of `tunesmith eval` against one whole forward pass a question, same batch size.

Three subjects with 40 questions each behind 5 worked examples, about as long as MMLU's. Paired: in every round each way
answers every question once. Writes results/eval.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
MODEL = "smollm2-135m"
THINGS = "river bridge kettle lantern orchard compass ferry harvest quarry violin meadow anvil beacon cellar"
FACTS = (
    "was first described by a surveyor who travelled along the northern coast and kept a detailed diary",
    "is said to lose about a third of its weight when it is left in the open for the whole of a dry summer",
    "needs to be inspected twice a year, once before the frost and once after the last of the snow has melted",
    "became the cause of a long dispute between two neighbouring towns over who had to pay for its repair",
)
Timed = tuple[float, list[list[float]]]
"""Seconds, and the four log-probabilities of every question."""


def make_subjects(n_subjects: int, n_questions: int) -> list[Any]:
    """Questions of our own, as long as MMLU's are in the mean (about 90 tokens with their choices)."""
    from tunesmith.evaluation.question import Question, Subject

    rng = random.Random(0)

    def question() -> Question:
        first, second, third = rng.sample(THINGS.split(), 3)
        text = (
            f"In a village by the sea, the old {first} {rng.choice(FACTS)}. The council asks what follows for the "
            f"{second} beside it if the {third} is to be kept. Which of these statements is correct?"
        )
        choices = [
            f"The {a} must be moved {rng.randrange(2, 90)} paces from the {b}"
            for a, b in (rng.sample(THINGS.split(), 2) for _ in range(4))
        ]
        return Question(text, tuple(choices), rng.randrange(4))

    return [
        Subject(name, name, "Other", tuple(question() for _ in range(5)), tuple(question() for _ in range(n_questions)))
        for name in THINGS.split()[:n_subjects]
    ]


def plain(model: Any, rows: list[list[int]], letters: list[int], batch_size: int, last_only: bool) -> Timed:
    """Whole prompts in padded batches, as they come, through transformers alone."""
    started = time.perf_counter()
    found: list[list[float]] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        keep = {"logits_to_keep": 1} if last_only else {}
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, **keep).logits
        found += logits[:, -1].float().log_softmax(-1)[:, letters].tolist()
    return time.perf_counter() - started, found


def shared(engine: Any, rows: list[list[int]], letters: list[int], per_subject: int) -> Timed:
    """`Engine.score`, subject by subject, as `tunesmith eval` asks."""
    from tunesmith.inference.scoring import ScoreRequest

    started = time.perf_counter()
    found: list[list[float]] = [[] for _ in rows]
    for start in range(0, len(rows), per_subject):
        requests = [ScoreRequest(row, candidates=tuple(letters)) for row in rows[start : start + per_subject]]
        for index, score in engine.score(requests):
            found[start + index] = list(score.logprobs)
    return time.perf_counter() - started, found


def compare(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """How far two sets of log-probabilities are from each other."""
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "predictions_equal": sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs),
        "largest_difference": max(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "eval.json")
    args = parser.parse_args()

    from transformers import AutoModelForCausalLM

    from tunesmith.config.schema import RunConfig
    from tunesmith.evaluation.prompts import Style, draw_examples, letter_tokens, write_prompts
    from tunesmith.inference.opening import open_model
    from tunesmith.models.hub import resolve_model

    keys = {"model_name_or_path": MODEL, "template": "fewshot", "infer_dtype": "float32"}
    opened = open_model(RunConfig.from_dict(keys, command="eval"), batch_size=args.batch_size)
    ordinary = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32).eval()
    letters = list(letter_tokens(opened.form, "ABCD"))
    rows = [
        prompt.ids
        for subject in make_subjects(args.subjects, args.questions)
        for prompt in write_prompts(opened.form, subject, draw_examples(subject, args.shots, 42), Style(), None)
    ]
    ways: dict[str, Callable[[], Timed]] = {
        "shared": lambda: shared(opened.engine, rows, letters, args.questions),
        "whole": lambda: plain(ordinary, rows, letters, args.batch_size, last_only=False),
        "whole_last_logits": lambda: plain(ordinary, rows, letters, args.batch_size, last_only=True),
    }
    runs: dict[str, list[Timed]] = {name: [] for name in ways}
    setting = {
        "model": MODEL,
        "subjects": args.subjects,
        "questions": len(rows),
        "shots": args.shots,
        "batch_size": args.batch_size,
        "prompt_tokens": sum(map(len, rows)),
        "threads": torch.get_num_threads(),
    }
    for number in range(args.rounds):
        for name, run in ways.items():
            runs[name].append(run())
            print(f"round {number + 1}: {name} {runs[name][-1][0]:.1f} s", flush=True)
        write(args.out, setting, runs)  # a round takes minutes: what was measured is kept
    print(args.out.read_text(encoding="utf-8"))


def write(out: Path, setting: dict[str, Any], runs: dict[str, list[Timed]]) -> None:
    """What the rounds so far say."""
    seconds = {name: [round(timed[0], 3) for timed in timings] for name, timings in runs.items()}
    ratios = {
        name: [round(slow / fast, 3) for slow, fast in zip(seconds[name], seconds["shared"], strict=True)]
        for name in ("whole", "whole_last_logits")
    }
    speeds = {name: round(setting["questions"] / statistics.median(v), 2) for name, v in seconds.items()}
    result = {
        "setting": setting,
        "questions_per_second": speeds,
        "times_faster": {name: {"median": statistics.median(v), "rounds": v} for name, v in ratios.items()},
        "against_whole": compare(runs["shared"][0][1], runs["whole"][0][1]),
        "seconds": seconds,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
