"""Batch inference with the arguments that the tutorials print: `tunesmith infer` under its old name.

python scripts/vllm_infer.py --model_name_or_path path_to_merged_model --dataset alpaca_en_demo
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

from tunesmith.cli.main import main
from tunesmith.config.argv import CommandLine

DATASET = "alpaca_en_demo"


def words_of(argv: list[str]) -> list[str]:
    """The words for `tunesmith infer`; where no file says otherwise, the script's defaults come first."""
    words = list(_translated(argv))
    given = CommandLine(words)
    if given.file:
        return words
    engine = "vllm" if importlib.util.find_spec("vllm") else "huggingface"
    if all(entry.key != "infer_backend" for entry in given.entries):
        print(f"answers come from the engine {engine}; --infer_backend chooses another", file=sys.stderr)
    return ["--dataset", DATASET, "--infer_backend", engine, *words]


def _translated(argv: list[str]) -> Iterator[str]:
    """Python's None is null here; one pipeline stage is what there is without saying so."""
    waiting = False
    for word in argv:
        name, equals, value = word.partition("=")
        if name.replace("-", "_") == "__pipeline_parallel_size":
            waiting = not equals
            _check_stages(value if equals else "1")
        elif waiting:
            waiting = False
            _check_stages(word)
        elif word == "None" or value == "None":
            yield word.removesuffix("None") + "null"
        else:
            yield word


def _check_stages(count: str) -> None:
    if count != "1":
        sys.exit(f"error: pass --vllm_config '{{\"pipeline_parallel_size\": {count}}}' for pipeline stages")


if __name__ == "__main__":
    sys.exit(main(["infer", *words_of(sys.argv[1:])]))
