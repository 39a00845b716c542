"""Serving on a CPU: sixteen streaming clients at once, against one after the other, against a loop of model.generate.

Starts `tunesmith api` as a process of its own, as users do. The ways take turns with the same questions of mixed
lengths, greedy, so that a moody machine troubles all of them; each round's questions begin otherwise, so that no round
finds its prompts in the prefix cache. Then adapters are swapped while all clients ask. Writes tokens/s of each way,
their ratios, times to the first token, errors, and whether all ways gave the same answers.

python benchmarks/serve.py --against other=http://127.0.0.1:8001/v1/MODEL-NAME  also asks another server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.clients import Ask, Reply, Swapped, all_streams, client_of, swap_under_load

MODEL = "smollm2-135m"
TEMPLATE = "smollm2"
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
Run = tuple[float, list[Reply]]
"""Seconds in all, replies in the order of the questions."""


def questions(count: int, most: int, number: int) -> list[Ask]:
    """Questions of 30 to 300 tokens, answers of `most` / 4 to `most`, in an order that mixes them."""
    rng = random.Random(number)
    texts = [f"{number}.{i}: " + " ".join(rng.choices(TOPICS, k=1 + i % 6)) for i in range(count)]
    return [Ask(text, max(1, most * (1 + i % 4) // 4)) for i, text in enumerate(texts)]


@contextmanager
def serving(folder: Path, slots: int) -> Iterator[str]:
    """`tunesmith api` on a free port; gives its address."""
    command = [sys.executable, "-m", "tunesmith", "api", "--model_name_or_path", MODEL, "--template", TEMPLATE]
    environment = {**os.environ, "API_PORT": "0", "MAX_CONCURRENT": str(slots), "API_ADAPTER_DIR": str(folder)}
    process = subprocess.Popen(
        [*command, "--infer_dtype", "float32"], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr
    try:
        for line in process.stderr:
            if found := re.search(r"serving on (http://\S+:\d+)", line):
                break
        else:
            sys.exit("the server did not start")
        yield found.group(1)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


class Plain:
    """A loop of model.generate, with the prompts that the server makes."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM

        from tunesmith.config.schema import RunConfig
        from tunesmith.inference.opening import open_model
        from tunesmith.models.hub import resolve_model

        keys = {"model_name_or_path": MODEL, "template": TEMPLATE, "infer_dtype": "float32"}
        self._form = open_model(RunConfig.from_dict(keys, command="chat"), batch_size=1).form
        self._model: Any = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> Run:
        """One question after the other."""
        from tunesmith.core.types import Message
        from tunesmith.inference.chat import decode

        begin, replies = time.perf_counter(), []
        for ask in asks:
            ids = torch.tensor([self._form.prompt_ids([Message("user", ask.text)])])
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=ask.most,
                eos_token_id=list(self._form.end_token_ids),
                pad_token_id=0,
            )[0, ids.shape[1] :].tolist()
            replies.append(Reply(decode(self._form.tokenizer, made, True), len(made)))
        return time.perf_counter() - begin, replies


def rates(runs: Sequence[Run]) -> list[float]:
    """Tokens/s of each round."""
    return [sum(reply.tokens for reply in replies) / seconds for seconds, replies in runs]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them are, in seconds with three digits."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)


def report(runs: dict[str, list[Run]], main: str) -> dict[str, Any]:
    """Medians over rounds, and ratios of each round: neighbours in time share the machine's mood."""
    speed = {name: rates(found) for name, found in runs.items()}
    firsts = {name: [r.first for _, rs in found for r in rs if r.first is not None] for name, found in runs.items()}
    texts = {name: [reply.text for _, replies in found for reply in replies] for name, found in runs.items()}
    return {
        "tokens_per_second": {name: round(statistics.median(values), 2) for name, values in speed.items()},
        "ratios": {
            f"{main} / {name}": {
                "median": round(statistics.median([a / b for a, b in zip(speed[main], values, strict=True)]), 2),
                "rounds": [round(a / b, 2) for a, b in zip(speed[main], values, strict=True)],
            }
            for name, values in speed.items()
            if name != main
        },
        "first_token_seconds": {
            name: {"p50": quantile(values, 0.5), "p95": quantile(values, 0.95)}
            for name, values in firsts.items()
            if values
        },
        "errors": {name: sum(bool(r.error) for _, replies in found for r in replies) for name, found in runs.items()},
        "answers_equal": {
            name: f"{sum(a == b for a, b in zip(texts[main], found, strict=True))} of {len(found)}"
            for name, found in texts.items()
        },
    }


def make_adapters(folder: Path, names: Sequence[str]) -> dict[str, Swapped]:
    """Two random adapters a name, strong enough to change every answer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunesmith.models.hub import resolve_model

    base = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    made: dict[str, Swapped] = {}
    for place, name in enumerate(names):
        folders = (folder / f"{name}0", folder / f"{name}1")
        for number, path in enumerate(folders):
            generator = torch.Generator().manual_seed(2 * place + number)
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
            model.save_pretrained(str(path))
        made[name] = Swapped(folders)
    return made


async def swap(url: str, folder: Path, clients: int, swaps: int, most: int) -> dict[str, Any]:
    """Four adapters, replaced under load."""
    adapters = make_adapters(folder, ("a", "b", "c", "d"))
    async with client_of(url) as client:
        for name, adapter in adapters.items():
            await client.post("/v1/adapters", json={"name": name, "path": str(adapter.folders[0])})
    asks = [Ask(topic, max(4, most // 4)) for topic in TOPICS[:5]]
    found = await swap_under_load(url, adapters, asks, n_clients=clients, n_swaps=swaps)
    return {**asdict(found), "errors": len(found.errors), "wrong": len(found.wrong), "example": found.errors[:1]}


def others(words: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`NAME=http://host:port/v1/MODEL` -> name: (address, model)."""
    found = {}
    for word in words:
        name, _, rest = word.partition("=")
        url, _, model = rest.partition("/v1/")
        found[name] = (url, model)
    return found


def measure(args: argparse.Namespace, url: str) -> dict[str, list[Run]]:
    """All ways in turn, `--rounds` times."""
    plain = None if args.no_generate else Plain()
    runs: dict[str, list[Run]] = {}
    for number in range(args.rounds + 1):  # the first one warms up
        asks = questions(args.requests if number else args.clients, args.max_new if number else 4, number)
        ways = {
            "at_once": lambda asks=asks: asyncio.run(all_streams(url, asks, MODEL, args.clients)),
            # Finds its prompts in the cache that the way before has filled: a head start.
            "in_turn": lambda asks=asks: asyncio.run(all_streams(url, asks, MODEL, 1)),
        }
        if plain:
            ways["generate"] = lambda asks=asks: plain.run(asks)
        for name, (other, model) in others(args.against).items():
            ways[name] = lambda other=other, model=model, asks=asks: asyncio.run(
                all_streams(other, asks, model, args.clients)
            )
        for name, run in ways.items():
            seconds, replies = run()
            if number:
                runs.setdefault(name, []).append((seconds, replies))
                print(f"round {number}: {name} {seconds:.1f} s", flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--max-new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--no-generate", action="store_true", help="leave the loop of model.generate out")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=URL/v1/MODEL")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "serve.json")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name, serving(Path(name), args.clients) as url:
        runs = measure(args, url)
        swapped = asyncio.run(swap(url, Path(name), args.clients, args.swaps, args.max_new)) if args.swaps else None
    setting = {
        "model": MODEL,
        "clients": args.clients,
        "requests": args.requests,
        "max_new_tokens": args.max_new,
        "rounds": args.rounds,
        "answer_tokens": [sum(reply.tokens for reply in replies) for _, replies in runs["at_once"]],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    result = {"setting": setting, **report(runs, "at_once"), "swaps_under_load": swapped}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
