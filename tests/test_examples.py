"""Examples load for their command, and what README and docs print as commands and YAML exists and is accepted."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tunesmith.cli.main import COMMANDS
from tunesmith.config import legacy
from tunesmith.config.argv import CommandLine
from tunesmith.config.build import Checks
from tunesmith.config.load import load_config
from tunesmith.config.reference import markdown
from tunesmith.config.schema import ALIASES, KEYS, RunConfig
from tunesmith.config.schema.key import MAKE, MAKING
from tunesmith.data.template import template_names

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"])
NO_PATHS = Checks(paths=False)
PROGRAMS = ("tunesmith", "llamafactory-cli", "lmf")
AWAITED: tuple[str, ...] = ()
"""Pictures that a run makes."""
SHELL = ("bash", "sh", "shell", "console")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def command_of(path: Path) -> str:
    folder = path.relative_to(ROOT / "examples").as_posix()
    if folder.startswith("merge_"):
        return "export"
    if path.stem == "expand":
        return "expand"
    if folder.startswith("data/"):
        return f"data {path.stem.partition('_')[0]}"
    if folder.startswith("eval/") or folder.endswith("_eval.yaml"):
        return "eval"
    return "chat" if folder.startswith("inference/") else "train"


def test_there_are_examples_and_pages() -> None:
    assert len(EXAMPLES) >= 16
    assert len(PAGES) >= 12
    assert {command_of(path) for path in EXAMPLES} == {"train", "export", "chat", "eval", "expand", *MAKE}


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_an_example_loads_for_its_command_and_uses_each_of_its_keys(path: Path) -> None:
    config = load_config([str(path)], command_of(path), NO_PATHS)
    assert config.unused == ()
    if config.command in MAKE and not config.model_name_or_path:
        return  # an endpoint writes the data, or rules do
    assert config.model_name_or_path
    assert config.command == "expand" or config.template in (*template_names(), "auto")


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_an_example_serves_the_other_commands_too(path: Path) -> None:
    for command in ("train", "chat", "export", "data"):
        load_config([str(path)], command, Checks(rules=False, paths=False))


def test_examples_name_bundled_data_and_each_others_output() -> None:
    bundled = json.loads((ROOT / "data" / "dataset_info.json").read_text(encoding="utf-8"))
    configs = {path: load_config([str(path)], command_of(path), NO_PATHS) for path in EXAMPLES}
    written = {config.output_dir for config in configs.values() if config.do_train}
    for path, config in configs.items():
        assert {*config.dataset, *config.eval_dataset} <= set(bundled), path
        assert set(config.adapter_name_or_path) <= written, path


def test_the_table_of_examples_is_complete() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert f"]({path.relative_to(ROOT / 'examples').as_posix()})" in text


def test_the_help_names_examples_that_exist() -> None:
    found = {
        match
        for path in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"examples/[\w/.-]+\.(?:yaml|json)", path.read_text(encoding="utf-8"))
    }
    assert found
    assert [name for name in sorted(found) if not (ROOT / name).is_file()] == []


LLAMA3 = {"model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "template": "llama3"}
LORA = {"adapter_name_or_path": ("saves/llama3-8b/lora/sft",), "finetuning_type": "lora"}
MERGED = {
    **LLAMA3,
    **LORA,
    "export_dir": "models/llama3_lora_sft",
    "export_size": 2,
    "export_device": "cpu",
    "export_legacy_format": False,
}
PRINTED = {
    "train_lora/llama3_lora_sft.yaml": {
        **LLAMA3,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": ("all",),
        "dataset": ("identity", "alpaca_en_demo"),
        "cutoff_len": 1024,
        "max_samples": 1000,
        "overwrite_cache": True,
        "preprocessing_num_workers": 16,
        "output_dir": "saves/llama3-8b/lora/sft",
        "logging_steps": 10.0,
        "save_steps": 500.0,
        "plot_loss": True,
        "overwrite_output_dir": True,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": True,
        "ddp_timeout": 180000000,
        "val_size": 0.1,
        "per_device_eval_batch_size": 1,
        "eval_strategy": "steps",
        "eval_steps": 500.0,
    },
    "merge_lora/llama3_lora_sft.yaml": MERGED,
    "merge_lora/llama3_q_lora.yaml": MERGED,
    "inference/llama3.yaml": {**LLAMA3, "infer_backend": "huggingface"},
    "inference/llama3_lora_sft.yaml": {**LLAMA3, **LORA, "infer_backend": "huggingface"},
    "train_lora/llama3_lora_eval.yaml": {
        **LLAMA3,
        **LORA,
        "template": "fewshot",
        "task": "mmlu_test",
        "lang": "en",
        "n_shot": 5,
        "save_dir": "saves/llama3-8b/lora/eval",
        "batch_size": 4,
    },
    "extras/nlg_eval/llama3_lora_predict.yaml": {
        **LLAMA3,
        **LORA,
        "stage": "sft",
        "do_predict": True,
        "eval_dataset": ("identity", "alpaca_en_demo"),
        "cutoff_len": 2048,
        "max_samples": 50,
        "overwrite_cache": True,
        "preprocessing_num_workers": 16,
        "output_dir": "saves/llama3-8b/lora/predict",
        "overwrite_output_dir": True,
        "per_device_eval_batch_size": 1,
        "predict_with_generate": True,
        "ddp_timeout": 180000000,
    },
}
"""File -> the keys and values that tutorials print for it."""


@pytest.mark.parametrize(("name", "printed"), PRINTED.items(), ids=PRINTED)
def test_files_of_the_tutorials_hold_what_tutorials_print(name: str, printed: dict[str, object]) -> None:
    path = ROOT / "examples" / name
    config = load_config([str(path)], command_of(path), NO_PATHS)
    set_by_file = config.explicit - ({"do_eval"} if "do_eval" not in printed else set())
    assert {key: getattr(config, key) for key in set_by_file} == printed


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def blocks() -> list[Block]:
    pattern = re.compile(r"^```([\w-]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [Block(named(page), *match) for page in PAGES for match in pattern.findall(page.read_text(encoding="utf-8"))]


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every line of a shell block that calls one of our programs."""
    found = []
    for block in blocks():
        if block.language not in SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if not any(program in line for program in PROGRAMS):
                continue  # bodies of curl calls, for one, quote across lines
            words = shlex.split(line.removeprefix("$ "), comments=True)
            program = next((word for word in words if "=" not in word), "")
            if Path(program).name in PROGRAMS:
                found.append((block.page, line.removeprefix("$ ")))
    return found


def test_pages_print_commands() -> None:
    assert len(command_lines()) >= 30


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_printed_command_is_one_that_runs(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)
    start = next(place for place, word in enumerate(words) if Path(word).name in PROGRAMS)
    command, *rest = words[start + 1 :] or ["help"]
    assert command in (*COMMANDS, "help")
    if command == "explain":
        assert rest[0] in KEYS
        rest = rest[1:]
    if command == "data" and f"data {rest[0]}" in MAKING:
        command, rest = f"data {rest[0]}", rest[1:]
    elif command == "data":
        assert rest[0] in ("preview", "check", "convert")
        if rest[0] == "convert":
            return
        own = ("--json", "--ids", "--row", "--png")
        rest = [word for before, word in pairwise(rest) if word not in own and before not in own[2:]]
    if command in ("help", "version", "env", "schema", "webui", "compare") or "-h" in rest:
        return
    read = CommandLine(rest)
    assert read.problems == []
    for entry in read.entries:
        assert entry.key in KEYS or entry.key in ALIASES or entry.key in legacy.NAMES, entry.key
    if command == "explain":
        return
    if read.file and read.file.startswith("examples/"):
        load_config(rest, command, NO_PATHS)
    elif read.file:
        assert "/" not in read.file, "a file in a folder is taken for one that is there"
    else:
        load_config(rest, command, NO_PATHS)


def yaml_blocks() -> list[Block]:
    others = ("# templates/", "# tasks/")
    return [block for block in blocks() if block.language == "yaml" and not block.text.startswith(others)]


def test_pages_print_yaml() -> None:
    assert len(yaml_blocks()) >= 6


@pytest.mark.parametrize("block", yaml_blocks(), ids=lambda block: block.page)
def test_printed_yaml_holds_known_keys_and_values(block: Block) -> None:
    values = yaml.safe_load(block.text)
    assert RunConfig.from_dict(values).explicit


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "json"], ids=lambda block: block.page)
def test_printed_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and "://" not in link]
    assert [link for link in local if not (page.parent / link).exists() and link not in AWAITED] == []
    assert [name for name in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / name).is_file()] == []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`?\bmake ([a-z-]+)`", text)) <= set(targets)


def test_both_readmes_print_the_same_commands_and_tests() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_zh.md"))
    for pattern in (r"^(?:tunesmith|make) [\w /.]+", r"`tests/[\w/.]+`", r"\]\((?:docs|examples)/[\w/.]+\)"):
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        assert found[0]
        assert sorted({word.strip() for word in found[0]}) == sorted({word.strip() for word in found[1]})


def test_the_page_of_keys_is_that_of_the_schema() -> None:
    page = ROOT / "docs" / "keys.md"
    how = "python -c \"from tunesmith.config.reference import markdown; print(markdown(), end='')\" > docs/keys.md"
    assert page.read_text(encoding="utf-8") == markdown(), f"make it anew: {how}"
