"""Guessing ahead on a CPU: the same requests without a drafter and with prompt lookup, in turn, on the 135M model.

Two kinds of text: answers that quote their prompts (the case prompt lookup is for), and chat that does not. Writes
tokens a forward pass, tokens a second of each, the ratios, and whether the answers are the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
HERE = Path(__file__).parent
STORY = (
    "The mill stood at the bend of the river, and every morning the miller opened the sluice before the sun was up. "
    "He ground the corn of four villages, and he knew each farmer by the sound of the cart on the bridge. "
    "When the river was low he mended sacks, and when it was high he listened to the wheel."
)
CODE = (
    "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n"
    "    return area(width, height) * depth\n"
)
QUOTING = (
    f"Repeat this text word for word:\n\n{STORY}",
    f"Correct the spelling of this text and give it back whole:\n\n{STORY}",
    f"Add a docstring to each function and show the whole file:\n\n{CODE}",
    f"Write this code again, with the name width changed to w:\n\n{CODE}",
)
FREE = (
    "What do bees make, and how?",
    "Tell me a short story about a lighthouse.",
    "Name three colours of the rainbow, and say for each what else in nature has it.",
    "Why is the sky blue?",
)


def run(engine: Any, requests: list[Any]) -> tuple[float, int, list[tuple[int, ...]]]:
    """(seconds, steps, answers) of requests submitted together."""
    engine.forget_prefixes()
    begin, steps = time.perf_counter(), 0
    places = {engine.submit(request): place for place, request in enumerate(requests)}
    answers: list[list[int]] = [[] for _ in requests]
    while engine.stats().waiting or engine.stats().running:
        for delta in engine.step():
            answers[places[delta.request_id]].extend(delta.token_ids)
        steps += 1
    return time.perf_counter() - begin, steps, [tuple(answer) for answer in answers]


def compare(plain: Any, drafting: Any, requests: list[Any], rounds: int) -> dict[str, Any]:
    """Ratios of each round: neighbours in time share the machine's mood."""
    ratios, rates, steps, same = [], {"plain": [], "drafting": []}, {}, True
    for _ in range(rounds):
        found = {name: run(engine, requests) for name, engine in (("plain", plain), ("drafting", drafting))}
        n_tokens = sum(map(len, found["plain"][2]))
        same = same and found["plain"][2] == found["drafting"][2]
        for name, (seconds, n_steps, _) in found.items():
            rates[name].append(n_tokens / seconds)
            steps[name] = n_steps
        ratios.append(round(found["plain"][0] / found["drafting"][0], 2))
    return {
        "tokens": n_tokens,
        "steps": steps,
        "tokens_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
        "speed_up": {"median": statistics.median(ratios), "rounds": ratios},
        "answers_equal": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10, help="prompt_lookup_num_tokens")
    parser.add_argument("--ngram", type=int, default=2, help="max_matching_ngram_size")
    parser.add_argument("--max-new", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "drafting.json")
    args = parser.parse_args()

    from tunesmith.config.schema import RunConfig
    from tunesmith.core.types import Message
    from tunesmith.inference.drafting import PromptLookup
    from tunesmith.inference.engine import SamplingParams
    from tunesmith.inference.hf import HuggingFaceEngine
    from tunesmith.inference.opening import open_model

    keys = {"model_name_or_path": MODEL, "template": "smollm2", "infer_dtype": "float32"}
    opened = open_model(RunConfig.from_dict(keys, command="chat"), batch_size=4)
    drafting = HuggingFaceEngine(opened.model, batch_size=4, drafter=PromptLookup(args.tokens, args.ngram))
    sampling = SamplingParams(do_sample=False, max_new_tokens=args.max_new)
    results: dict[str, Any] = {"prompt_lookup_num_tokens": args.tokens, "max_matching_ngram_size": args.ngram}
    for name, texts in (("quoting", QUOTING), ("free", FREE)):
        asked = [opened.form.request([Message("user", text)], sampling) for text in texts]
        before = drafting.stats()
        one_by_one = [compare(opened.engine, drafting, [request], args.rounds) for request in asked]
        after = drafting.stats()
        drafted = after.drafted_tokens - before.drafted_tokens
        n_tokens = sum(one["tokens"] for one in one_by_one)
        results[name] = {
            "alone": one_by_one,
            "alone_tokens_per_step": round(n_tokens / sum(one["steps"]["drafting"] for one in one_by_one), 2),
            "share_of_drafts_accepted": round((after.accepted_tokens - before.accepted_tokens) / max(1, drafted), 2),
            "together": compare(opened.engine, drafting, asked, args.rounds),
        }
        print(name, json.dumps(results[name]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
