"""In a process of its own: what is loaded, what is said, which exit code. Times are never judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "numpy", "pydantic", "rich")
SCRIPT = """
import sys
from tunesmith.cli.main import main
code = main(sys.argv[1:])
print("loaded:", [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(heavy=HEAVY)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["version"], 0),
        (["train", "-h"], 0),
        (["api", "-h"], 0),
        (["explain", "stage"], 0),
        (["schema"], 0),
        (["tran"], 2),
        (["train", "bad.yaml"], 2),
        (["chat", "--lora_rnk", "3"], 2),
        (["data", "check", "missing.yaml"], 2),
    ],
)
def test_nothing_heavy_is_loaded(tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "bad.yaml").write_text("stage: sft\nlora_rnk: 8\nlearning_rate: fast\n")
    done = run(words, tmp_path)
    assert done.returncode == code, done.stderr
    assert "loaded: []" in done.stderr
    if "bad.yaml" in words:
        assert "bad.yaml:2: unknown key lora_rnk" in done.stderr
        assert "bad.yaml:3: learning_rate takes a number" in done.stderr


def test_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunesmith", "version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Tunesmith" in done.stdout


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -W error -m tunesmith train -h | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
