"""Continuous batching on a CPU: many requests at once, against one after the other, against a loop of model.generate.

Same model, same prompts of mixed lengths, greedy, one process; the three ways take turns. Writes tokens a second of
each, the ratios, times to the first token, and whether all three gave the same answers.
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

MODEL = "smollm2-135m"
TOPICS = (
    "What is the capital of France?",
    "Hi",
    "Name three colours of the rainbow, and say for each what else in nature has it.",
    "2 + 2 =",
    "Write one sentence about the sea.",
    "Who wrote Hamlet, and when? Tell me a little about the play and about the time in which it was written.",
    "What do bees make? Answer in one word.",
    "Translate 'good morning' into French.",
)
HERE = Path(__file__).parent
Timed = tuple[float, list[list[int]], list[float]]
"""Seconds in all, answers, seconds from the start to the first token of each."""


def requests_of(form: Any, count: int, max_new: int) -> list[Any]:
    """Questions of 30 to 300 tokens in an order that mixes them."""
    from tunesmith.core.types import Message
    from tunesmith.inference.engine import SamplingParams

    rng = random.Random(0)
    sampling = SamplingParams(do_sample=False, max_new_tokens=max_new)
    texts = [f"{i}: " + " ".join(rng.choices(TOPICS, k=1 + i % 6)) for i in range(count)]
    return [form.request([Message("user", text)], sampling) for text in texts]


def at_once(engine: Any, requests: list[Any]) -> Timed:
    """All requests submitted together."""
    begin = time.perf_counter()
    places = {engine.submit(request): place for place, request in enumerate(requests)}
    answers: list[list[int]] = [[] for _ in requests]
    first: dict[int, float] = {}
    while engine.stats().waiting or engine.stats().running:
        for delta in engine.step():
            place = places[delta.request_id]
            first.setdefault(place, time.perf_counter() - begin)
            answers[place].extend(delta.token_ids)
    return time.perf_counter() - begin, answers, [first[i] for i in range(len(requests))]


def in_turn(engine: Any, requests: list[Any]) -> Timed:
    """One request after the other through the same engine, as a server without batching would."""
    begin = time.perf_counter()
    answers, first = [], []
    for request in requests:
        ids: list[int] = []
        for number, delta in enumerate(engine.stream(request)):
            if number == 0:
                first.append(time.perf_counter() - begin)
            ids.extend(delta.token_ids)
        answers.append(ids)
    return time.perf_counter() - begin, answers, first


@torch.inference_mode()
def plain(model: Any, requests: list[Any]) -> Timed:
    """A loop of model.generate."""
    begin = time.perf_counter()
    answers = []
    for request in requests:
        ids = torch.tensor([list(request.prompt_ids)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=request.sampling.max_new_tokens,
            eos_token_id=list(request.end_token_ids),
            pad_token_id=0,
        )
        made = output[0, ids.shape[1] :].tolist()
        answers.append(made[:-1] if made[-1] in request.end_token_ids else made)
    return time.perf_counter() - begin, answers, []


def report(runs: dict[str, list[Timed]], n_tokens: int) -> dict[str, Any]:
    """Medians over rounds, and ratios of each round (neighbours in time share the machine's mood)."""
    rates = {name: [n_tokens / seconds for seconds, _, _ in timed] for name, timed in runs.items()}
    first = sorted(runs["at_once"][-1][2])
    ratios = {
        f"at_once / {name}": [round(a / b, 2) for a, b in zip(rates["at_once"], rates[name], strict=True)]
        for name in ("in_turn", "generate")
    }
    return {
        "tokens_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
        "ratios": {name: {"median": statistics.median(values), "rounds": values} for name, values in ratios.items()},
        "first_token_seconds": {
            "at_once": {"p50": round(statistics.median(first), 2), "p95": round(first[int(len(first) * 0.95)], 2)},
            "in_turn": {"p50": round(statistics.median(runs["in_turn"][-1][2]), 2)},
        },
        "answers_equal": {
            name: sum(a == b for a, b in zip(runs["at_once"][0][1], timed[0][1], strict=True))
            for name, timed in runs.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--max-new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-generate", action="store_true", help="leave the loop of model.generate out")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "serving.json")
    args = parser.parse_args()

    from transformers import AutoModelForCausalLM

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.opening import open_model
    from tunesmith.models.hub import resolve_model

    keys = {"model_name_or_path": MODEL, "template": "smollm2", "infer_dtype": "float32"}
    opened = open_model(RunConfig.from_dict(keys, command="chat"), batch_size=args.requests)
    engine: Any = opened.engine
    ordinary = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32).eval()
    requests = requests_of(opened.form, args.requests, args.max_new)
    ways: dict[str, Callable[[], Timed]] = {
        "at_once": lambda: at_once(engine, requests),
        "in_turn": lambda: in_turn(engine, requests),
        "generate": lambda: plain(ordinary, requests),
    }
    runs: dict[str, list[Timed]] = {name: [] for name in ways}
    for number in range(args.rounds):
        for name, run in ways.items():
            if name == "generate" and args.no_generate:
                runs[name].append(runs["in_turn"][-1])
                continue
            engine.forget_prefixes()  # every way reads every prompt
            runs[name].append(run())
            print(f"round {number + 1}: {name} {runs[name][-1][0]:.1f} s", flush=True)
    n_tokens = sum(len(answer) for answer in runs["at_once"][0][1])
    prompt_tokens = sum(len(request.prompt_ids) for request in requests)
    setting = {
        "model": MODEL,
        "requests": args.requests,
        "max_new_tokens": args.max_new,
        "prompt_tokens": prompt_tokens,
        "answer_tokens": n_tokens,
        "threads": torch.get_num_threads(),
    }
    result = {"setting": setting, **report(runs, n_tokens)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
