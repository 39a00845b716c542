"""Rows to token ids: this project's pipeline against a loop that renders and tokenizes row by row, in turn; and memory.

Both sides run in fresh processes on the same generated file, A B A B; rows a second without start-up. Resident memory
is measured at several sizes, after tokenizing and after every row was read once in random order. Writes one JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORDS = (HERE.parent / "README.md").read_text(encoding="utf-8").split()


def generate(path: Path, count: int) -> None:
    """Rows of 20 to 120 words, none equal to another."""
    source = random.Random(0)
    with path.open("w", encoding="utf-8") as handle:
        for index in range(count):
            asked = " ".join(source.choices(WORDS, k=source.randrange(5, 40)))
            answer = " ".join(source.choices(WORDS, k=source.randrange(15, 80)))
            handle.write(json.dumps({"instruction": f"{index}: {asked}", "input": "", "output": answer}) + "\n")


def memory() -> dict[str, float]:
    """Resident now, and at most so far, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {
        line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))
    }
    return {"rss_mib": values["VmRSS"], "peak_mib": values["VmHWM"]}


def load(model: str) -> tuple[Any, Any, Any]:
    from tunesmith.config.schema import RunConfig
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    config = RunConfig.from_dict(
        {"model_name_or_path": model, "template": "smollm2", "do_train": True, "cutoff_len": 2048}
    )
    tokenizer = load_tokenizer(config)
    return config, tokenizer, load_template_for(config, tokenizer)


def ours(data: str, model: str) -> dict[str, float]:
    """The pipeline up to the items that the trainer takes; then every row once in random order."""
    from tunesmith.data.pipeline import prepare

    config, tokenizer, template = load(model)
    before = memory()
    started, used = time.perf_counter(), time.process_time()
    train: Any = prepare(config.replace(dataset=(data,)), tokenizer, template).train
    seconds, used = time.perf_counter() - started, time.process_time() - used
    made = memory()
    order = list(range(len(train)))
    random.Random(1).shuffle(order)
    tokens = sum(len(train[index]["input_ids"]) for index in order)
    after = memory()
    return {
        "rows": len(train),
        "tokens": tokens,
        "seconds": seconds,
        "cpu_seconds": used,
        "start_mib": before["rss_mib"],
        "rss_mib": made["rss_mib"],
        "rss_after_reading_mib": after["rss_mib"],
        "peak_mib": after["peak_mib"],
    }


def loop(data: str, model: str) -> dict[str, float]:
    """Plain: one row, one rendering, two tokenizer calls, labels; everything kept in lists."""
    _, tokenizer, _ = load(model)
    before = memory()
    started, used = time.perf_counter(), time.process_time()
    kept = []
    with Path(data).open(encoding="utf-8") as handle:
        for line in handle:
            row = json.loads(line)
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": row["instruction"]}], tokenize=False, add_generation_prompt=True
            )
            source = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            target = tokenizer(row["output"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
            ids = (source + target)[:2048]
            labels = ([-100] * len(source) + target)[:2048]
            kept.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    seconds, used = time.perf_counter() - started, time.process_time() - used
    after = memory()
    return {
        "rows": len(kept),
        "tokens": sum(len(row["input_ids"]) for row in kept),
        "seconds": seconds,
        "cpu_seconds": used,
        "start_mib": before["rss_mib"],
        "rss_mib": after["rss_mib"],
        "peak_mib": after["peak_mib"],
    }


def run(side: str, data: Path, model: str) -> dict[str, Any]:
    """One side in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "BENCH_CACHE": home}
        command = [sys.executable, __file__, "--side", side, "--data", str(data), "--model", model]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1])


def work(side: str, data: str, model: str) -> None:
    """A measured process: rows are cached in a folder of its own, models are found where they always are."""
    from tunesmith.data import cache

    root = Path(os.environ["BENCH_CACHE"])
    cache.cache_folder = lambda key: root / "tokenized" / key
    print(json.dumps((ours if side == "ours" else loop)(data, model)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=None, help="sizes for memory; default 10k, rows, 2 x rows"
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", default=str(HERE / "results" / "preprocess.json"))
    parser.add_argument("--side", choices=("ours", "loop"))
    parser.add_argument("--data")
    arguments = parser.parse_args()
    if arguments.side:
        work(arguments.side, arguments.data, arguments.model)
        return
    sizes = arguments.sizes or sorted({min(10_000, arguments.rows), arguments.rows, 2 * arguments.rows})
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        generate(data, arguments.rows)
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "loop": []}
        for _ in range(arguments.repeats):
            for side, results in runs.items():
                results.append(run(side, data, arguments.model))
                print(side, results[-1], flush=True)
        by_size = []
        for size in sizes:
            generate(data, size)
            by_size.append(run("ours", data, arguments.model))
            print("memory", size, by_size[-1], flush=True)
    rates = {side: [one["rows"] / one["seconds"] for one in results] for side, results in runs.items()}
    ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates["loop"], strict=True)]
    resident = [one["rss_after_reading_mib"] for one in by_size]
    result = {
        "rows": arguments.rows,
        "cores": os.cpu_count(),
        "rows_per_second": {side: statistics.median(values) for side, values in rates.items()},
        "ratio_min": min(ratios),
        "ratio_median": statistics.median(ratios),
        "memory_growth": max(resident) / min(resident) - 1,
        "runs": runs,
        "by_size": by_size,
    }
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("rows_per_second", "ratio_min", "ratio_median", "memory_growth")}))


if __name__ == "__main__":
    main()
