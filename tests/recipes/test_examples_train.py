"""Every example that trains the packaged model, and every row of docs/methods.md that names one, makes a step.

The model is a random one with the tokenizer of the tests; what the examples do on the real one is in tests/e2e.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_tiny_llama

from tunesmith.config.load import load_config
from tunesmith.core.run_state import curves
from tunesmith.recipes import expand, train

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"
MODEL = "model_name_or_path: smollm2-135m"
OTHER_COMMANDS = ("data", "demo", "eval", "inference", "merge_lora")
_LINK = re.compile(r"\]\(\.\./(examples/[\w/.-]+\.yaml)\)(?:, `([^`]+)`)?")
SMALL = ("max_steps=1", "num_train_epochs=1", "max_samples=12", "logging_steps=1", "save_strategy=no", "use_cpu=true")
NEEDS = {
    "smollm2_freeze_sft.yaml": "examples/extras/llama_pro/expand.yaml",
    "smollm2_lora_ppo.yaml": "examples/train_lora/smollm2_lora_reward.yaml",
    "smollm2_lora_predict.yaml": "examples/train_lora/smollm2_lora_sft.yaml",
}
"""Example -> the one whose output it reads."""

Train = Callable[[str, str], Path]


def examples() -> list[tuple[str, str]]:
    """(file, nothing) of each example that trains the packaged model."""
    files = sorted((ROOT / "examples").rglob("smollm2*.yaml"))
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return [(name, "") for name in names if name.split("/")[1] not in OTHER_COMMANDS]


def rows() -> list[tuple[str, str]]:
    """(file, words) of each example that a table of the page names with keys behind it."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [(match[1], match[2]) for line in lines for match in _LINK.finditer(line) if match[2]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Iterator[Train]:
    """Runs an example with words behind it; where its result is. Each runs once."""
    folder = tmp_path_factory.mktemp("examples")
    base = folder / "base"
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6, "max_position_embeddings": 8192}
    make_tiny_llama(**sizes).save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    known: dict[tuple[str, str], Path] = {}

    def find(name: str, words: str) -> Path:
        if (name, words) not in known:
            out = folder / f"run-{len(known)}"
            known[name, words] = out
            before = needed(name)
            model = before if "llama_pro" in name and before else base
            argv = [str(ROOT / name), f"model_name_or_path={model}", f"output_dir={out}"]
            if name.endswith("expand.yaml"):
                expand.run(load_config([*argv, "num_expand=2"], "expand"))
                return out
            argv += [*SMALL, "force_template=true", "cutoff_len=512", *words.split()]
            argv += [f"adapter_name_or_path={before}"] if "predict" in name else []
            argv += [f"reward_model={before}"] if "ppo" in name else []
            train_or_predict([word for word in argv if "longlora" not in name or not word.startswith("cutoff_len")])
        return known[name, words]

    def needed(name: str) -> Path | None:
        of = next((of for end, of in NEEDS.items() if name.endswith(end) and "train_freeze" not in name), None)
        return find(of, "") if of else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_HOME", str(folder / "home"))
        patch.chdir(ROOT)
        yield find


def train_or_predict(argv: list[str]) -> None:
    from tunesmith.recipes import predict

    config = load_config(argv, "train")
    if config.do_train:
        train.run(config)
    else:
        predict.run(config)


@pytest.mark.parametrize(("name", "words"), [*examples(), *rows()])
def test_it_makes_a_step(trained: Train, name: str, words: str) -> None:
    out = trained(name, words)
    if "predict" in name:
        assert (out / "generated_predictions.jsonl").stat().st_size > 0
    else:
        assert len(curves(out)["loss"]) == 1


def test_every_row_of_the_stages_has_an_example() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("## Stages")[2].partition("\n\n`pref_ftx`")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(lines) >= 15
    assert [line for line in lines if not _LINK.search(line) and "(#" not in line.split("|")[-2]] == []
    assert len(examples()) > 25
    assert len(rows()) >= 10
