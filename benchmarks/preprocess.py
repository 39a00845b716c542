"""Rows to token ids: this project's pipeline against a loop that renders and tokenizes row by row; memory; first step.

Every side runs in a fresh process with an empty cache on the same generated file, in turn; rows a second, without
start-up. All give the same ids, which is checked.

ours         `data.pipeline.prepare`, all rows waited for
loop         one row after the other, each string of the template encoded by a call of its own; rows stay in lists
mapped       the same inside `datasets`: JSON to Arrow, one map to a common layout, one map to ids, batches of 1000
mapped_all   the same with `num_proc` at the number of cores

The first step is held against the bare imports of torch, transformers' Trainer and peft, in turn: what no program that
trains with them can be below.

`mapped` is what LLaMA-Factory does, step by step; the result says whether the package itself is installed. Resident
memory of `ours` is measured at several sizes, after every row was read once in random order. Writes one JSON file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIDES = ("ours", "loop", "mapped", "mapped_all")
SYSTEM = "You are a helpful assistant."
SLOTS = (
    "<|im_start|>system\n{}<|im_end|>\n",
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "{}<|im_end|>\n",
)
RARE = 0.02
"""Words that no other row has: names, numbers, slips."""


def sentences() -> list[str]:
    """Real text: the bundled English demo rows."""
    rows = json.loads((HERE.parent / "data" / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    texts = [row[name] for row in rows for name in ("instruction", "input", "output")]
    return [part.strip() for text in texts for part in text.replace("\n", "\n. ").split(". ") if part.strip()]


def generate(path: Path, count: int) -> None:
    """Rows of some sentences, none equal to another, two words of a hundred seen nowhere else."""
    source, known = random.Random(0), sentences()
    letters = "etaoinshrdlucmfwypvbgkjqxz0123456789"

    def text(least: int, most: int) -> str:
        words = " ".join(source.choices(known, k=source.randrange(least, most))).split(" ")
        for place in range(len(words)):
            if source.random() < RARE:
                words[place] = "".join(source.choices(letters, k=source.randrange(3, 12)))
        return " ".join(words)

    with path.open("w", encoding="utf-8") as handle:
        for index in range(count):
            row = {"instruction": f"{index}: {text(1, 4)}", "input": "", "output": text(2, 8), "system": SYSTEM}
            handle.write(json.dumps(row) + "\n")


def memory() -> dict[str, float]:
    """Resident now, and at most so far, in MiB; and of the largest process that was started from here."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {
        line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))
    }
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"rss_mib": values["VmRSS"], "peak_mib": values["VmHWM"], "largest_child_mib": largest}


def config_of(model: str, **keys: Any) -> Any:
    from tunesmith.config.schema import RunConfig

    columns = {"model_name_or_path": model, "template": "smollm2", "do_train": True, "cutoff_len": 2048}
    return RunConfig.from_dict(columns | keys)


def clock() -> tuple[float, float]:
    """Seconds, and processor seconds of this process and of those that ended."""
    used = os.times()
    return time.perf_counter(), used.user + used.system + used.children_user + used.children_system


class Sum:
    """A checksum over rows of ids."""

    def __init__(self) -> None:
        self._hash, self.rows, self.tokens = hashlib.sha256(), 0, 0

    def add(self, ids: Any) -> None:
        self._hash.update(json.dumps(list(ids)).encode())
        self.rows += 1
        self.tokens += len(ids)

    def facts(self) -> dict[str, Any]:
        return {"rows": self.rows, "tokens": self.tokens, "sha256": self._hash.hexdigest()}


def ours(data: str, model: str) -> Iterator[Any]:
    """The pipeline up to the items that the trainer takes."""
    from tunesmith.data import early
    from tunesmith.data.pipeline import prepare
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    early.GROWING_BYTES = 1 << 60  # all rows are waited for
    config = config_of(model, dataset=data)
    tokenizer = load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    yield None
    train: Any = prepare(config, tokenizer, template).train
    yield [train[index] for index in ()]
    order = list(range(len(train)))
    random.Random(1).shuffle(order)
    for index in order:
        train[index]
    yield (train[index]["input_ids"] for index in range(len(train)))


def encode_row(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Ids and labels; each string by a call of its own."""
    system, prompt, answer = (
        tokenizer.encode(slot.format(text) if "{" not in text else slot.replace("{}", text), add_special_tokens=False)
        for slot, text in zip(SLOTS, (row["system"], row["instruction"], row["output"]), strict=True)
    )
    source = system + prompt
    return (source + answer)[:2048], ([-100] * len(source) + answer)[:2048]


def tokenizer_of(model: str) -> Any:
    from tunesmith.models.tokenizer import load_tokenizer

    return load_tokenizer(config_of(model))


def loop(data: str, model: str) -> Iterator[Any]:
    """Plain, everything in lists."""
    tokenizer = tokenizer_of(model)
    yield None
    kept = []
    with Path(data).open(encoding="utf-8") as handle:
        for line in handle:
            ids, labels = encode_row(tokenizer, json.loads(line))
            kept.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    yield None
    yield (row["input_ids"] for row in kept)


def mapped(data: str, model: str, num_proc: int | None = None) -> Iterator[Any]:
    """Through `datasets`, with its cache."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = tokenizer_of(model)

    def align(row: dict[str, Any]) -> dict[str, Any]:
        question = "\n".join(part for part in (row["instruction"], row["input"]) if part)
        prompt, response = [{"role": "user", "content": question}], [{"role": "assistant", "content": row["output"]}]
        return {"_prompt": prompt, "_response": response, "_system": row["system"], "_tools": ""}

    def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, response, system in zip(rows["_prompt"], rows["_response"], rows["_system"], strict=True):
            row = {"system": system, "instruction": prompt[0]["content"], "output": response[0]["content"]}
            ids, labels = encode_row(tokenizer, row)
            found["input_ids"].append(ids)
            found["attention_mask"].append([1] * len(ids))
            found["labels"].append(labels)
        return found

    yield None
    with tempfile.TemporaryDirectory() as folder:
        rows = datasets.load_dataset("json", data_files=data, split="train", cache_dir=folder)
        rows = rows.map(align, remove_columns=rows.column_names, num_proc=num_proc)
        rows = rows.map(encode, batched=True, batch_size=1000, remove_columns=rows.column_names, num_proc=num_proc)
        yield None
        yield iter(rows["input_ids"])


def mapped_all(data: str, model: str) -> Iterator[Any]:
    """With a process for each core."""
    return mapped(data, model, os.cpu_count())


def work(side: str, data: str, model: str) -> None:
    """A measured process: set up, then the clock runs until the rows are there, then all are read."""
    steps = globals()[side](data, model)
    next(steps)
    before, (started, used) = memory(), clock()
    next(steps)
    (stopped, spent), made = clock(), memory()
    found, total = next(steps), Sum()
    after = memory()
    for ids in found:
        total.add(ids)
    facts = {"seconds": stopped - started, "cpu_seconds": spent - used, "start_mib": before["rss_mib"]}
    peak = {"rss_mib": made["rss_mib"], "rss_after_reading_mib": after["rss_mib"], "peak_mib": after["peak_mib"]}
    print(json.dumps({**total.facts(), **facts, **peak, "largest_child_mib": after["largest_child_mib"]}))


def fresh_home(folder: str) -> dict[str, str]:
    """An environment with an empty cache of rows; models are found where they always are."""
    sys.path.insert(0, str(HERE.parent / "src"))
    from tunesmith.core import env

    home = Path(folder) / "home"
    home.mkdir()
    (home / "models").symlink_to(env.home() / "models")
    return {**os.environ, "TUNESMITH_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def run(side: str, data: Path, model: str) -> dict[str, Any]:
    """One side in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--side", side, "--data", str(data), "--model", model]
        answer = subprocess.run(command, env=fresh_home(folder), capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(answer.stderr)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    found["rows_per_second"] = found["rows"] / found["seconds"]
    return found


def first_step(data: Path, model: str) -> dict[str, float]:
    """Seconds from the start of `tunesmith train` to the log line of its first step, and to the report on all rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        keys = {
            "model_name_or_path": model,
            "template": "smollm2",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": str(data),
            "output_dir": str(out),
            "cutoff_len": 1024,
            "max_steps": 3,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
        }
        config = Path(folder) / "train.json"
        config.write_text(json.dumps(keys), encoding="utf-8")
        said = Path(folder) / "said.txt"
        started, first = time.perf_counter(), None
        with said.open("w") as handle:
            command = [sys.executable, "-m", "tunesmith", "train", str(config)]
            process = subprocess.Popen(command, env=fresh_home(folder), stdout=handle, stderr=handle)
            while process.poll() is None:
                if first is None and (out / "trainer_log.jsonl").is_file():
                    first = time.perf_counter() - started
                time.sleep(0.02)
        text = said.read_text()
        if process.returncode or first is None:
            raise SystemExit(text)
        grew = "training begins while they are tokenized" in text
        return {"seconds": first, "whole_run_seconds": time.perf_counter() - started, "began_before_all_rows": grew}


def bare_imports() -> float:
    """Seconds of a process that only imports what every training needs."""
    code = "import torch, peft; from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sides", nargs="*", default=SIDES, choices=SIDES)
    parser.add_argument("--sizes", type=int, nargs="*", help="for memory; default 10k, rows, 2 x rows")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", default=str(HERE / "results" / "preprocess.json"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        work(arguments.side, arguments.data, arguments.model)
        return
    sizes = arguments.sizes or sorted({min(10_000, arguments.rows), arguments.rows, 2 * arguments.rows})
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        generate(data, arguments.rows)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides}
        for _ in range(arguments.repeats):
            for side, results in runs.items():
                results.append(run(side, data, arguments.model))
                print(side, results[-1], flush=True)
        if len({one["sha256"] for results in runs.values() for one in results}) != 1:
            raise SystemExit("the sides gave other ids")
        step = [
            {"bare_imports": bare_imports(), **first_step(data, arguments.model)} for _ in range(arguments.repeats + 1)
        ]
        print("first step", step, flush=True)
        by_size = []
        for size in sizes:
            generate(data, size)
            by_size.append(run("ours", data, arguments.model))
            print("memory", size, by_size[-1], flush=True)
    write(arguments, runs, step, by_size)


def write(arguments: Any, runs: dict[str, Any], step: list[Any], by_size: list[Any]) -> None:
    """The result, and its main figures on the screen."""
    paired = {
        side: [
            mine["rows_per_second"] / theirs["rows_per_second"]
            for mine, theirs in zip(runs["ours"], results, strict=True)
        ]
        for side, results in runs.items()
        if side != "ours"
    }
    cpu = {side: statistics.median(one["cpu_seconds"] for one in results) for side, results in runs.items()}
    resident = [one["rss_after_reading_mib"] for one in by_size]
    figures = {
        "rows": arguments.rows,
        "cores": os.cpu_count(),
        "llamafactory_installed": importlib.util.find_spec("llamafactory") is not None,
        "rows_per_second": {
            side: statistics.median(one["rows_per_second"] for one in results) for side, results in runs.items()
        },
        "times_faster_median": {side: statistics.median(values) for side, values in paired.items()},
        "times_faster_min": {side: min(values) for side, values in paired.items()},
        "cpu_seconds": cpu,
        "first_step_seconds": min(one["seconds"] for one in step),
        "bare_imports_seconds": min(one["bare_imports"] for one in step),
        "memory_growth": max(resident) / min(resident) - 1,
    }
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**figures, "first_step": step, "runs": runs, "by_size": by_size}, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
