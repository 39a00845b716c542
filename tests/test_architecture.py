"""The shape of the code: layers, documented modules, imports that cost nothing until they are used."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tunesmith

ROOT = Path(tunesmith.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages([str(ROOT)], "tunesmith.") if "__main__" not in info.name)


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 40


def test_every_module_imports_with_core_dependencies_only() -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module opens with 1-3 lines on what it is for"
    assert len(text.splitlines()) <= 600


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["train", "--help"], ["train", "no_such_key=1"]])
def test_help_and_configuration_errors_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tunesmith.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'accelerate', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_env_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if "os.environ" in path.read_text(encoding="utf-8") or "os.getenv" in path.read_text(encoding="utf-8")
    ]
    assert readers == ["core/env.py"]


def test_objectives_do_not_import_each_other() -> None:
    shared = {"base", "logprobs", "online", "clipped", "advantages"}
    for path in (ROOT / "objectives").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunesmith.objectives."):
                assert (node.module or "").rsplit(".", 1)[-1] in shared, path
