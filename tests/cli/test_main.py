"""Commands, exit codes, and what is said on the way."""

from __future__ import annotations

import errno
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tunesmith import __version__
from tunesmith.cli.main import COMMANDS, main
from tunesmith.core.errors import ConfigError, DataError, Interrupted, Problem
from tunesmith.data.checks.result import CheckResult

CONFIG = "model_name_or_path: m\ndo_train: true\ndataset: a\noutput_dir: out\n"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_DEBUG", raising=False)
    (tmp_path / "run.yaml").write_text(CONFIG)


class Recorder:
    """Stands for the recipes: notes what was called with which configuration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, object]] = []
        self.more: list[tuple[object, ...]] = []
        self.error: BaseException | None = None
        self.result: object = None
        for name, functions in {
            "train": ["run"],
            "predict": ["run"],
            "export": ["run"],
            "chat": ["run"],
            "infer": ["run"],
            "data": ["check"],
            "preview": ["preview"],
            "convert": ["convert_file"],
            "tunesmith.serving.app": ["run"],
            "tunesmith.studio.page": ["run_chat"],
        }.items():
            module = ModuleType(name if "." in name else f"tunesmith.recipes.{name}")
            for function in functions:
                setattr(module, function, self._noting(f"{name.removeprefix('tunesmith.')}.{function}"))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            # `from package import module` takes the attribute, once an earlier test has imported the real one.
            package, _, last = module.__name__.rpartition(".")
            monkeypatch.setattr(importlib.import_module(package), last, module, raising=False)

    def _noting(self, label: str):
        def note(config, *more, **options):
            self.calls.append((label, config))
            self.more.append((*more, *options.values()))
            if self.error:
                raise self.error
            return self.result

        return note

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in self.calls]


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def test_usage(capsys) -> None:
    for words in ([], ["help"], ["--help"], ["-h"]):
        assert main(words) == 0
        usage = capsys.readouterr().out
        assert usage.startswith("usage: tunesmith COMMAND")
        assert all(name in usage for name in COMMANDS)
        assert max(map(len, usage.splitlines())) <= 100


def test_version(capsys) -> None:
    for word in ("version", "--version"):
        assert main([word]) == 0
        assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "hint"),
    [("tran", "train"), ("exprot", "export"), ("web-ui", "webui"), ("x.yaml", "tunesmith train x.yaml")],
)
def test_unknown_commands(capsys, word: str, hint: str) -> None:
    assert main([word]) == 2
    assert f"did you mean {hint}?" in capsys.readouterr().err


def test_webui_says_what_it_takes(capsys) -> None:
    assert main(["webui", "-h"]) == 0
    assert "--token" in capsys.readouterr().out
    assert main(["webui", "config.yaml"]) == 2
    assert "webui does not know 'config.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "chat", "export", "data", "api", "infer", "webchat", "eval"])
def test_help_lists_the_keys_of_the_command_only(capsys, name: str) -> None:
    from tunesmith.config.schema import KEYS

    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert "example:\n  tunesmith" in text
    for key, known in KEYS.items():
        shown = f"--{key} " in text or f"--{key}\n" in text
        assert shown == (name in known.commands and not known.not_yet), key
        if name in known.commands and known.not_yet:
            assert key in text


def test_train_trains_then_predicts(recipes: Recorder) -> None:
    assert main(["train", "run.yaml", "lora_rank=4"]) == 0
    assert recipes.labels == ["train.run"]
    assert recipes.calls[0][1].lora_rank == 4
    recipes.calls.clear()
    predict = ["do_predict=true", "predict_with_generate=true", "eval_dataset=b"]
    assert main(["train", "run.yaml", *predict]) == 0
    assert recipes.labels == ["train.run", "predict.run"]
    recipes.calls.clear()
    assert main(["train", "run.yaml", "do_train=false", *predict]) == 0
    assert recipes.labels == ["predict.run"]
    recipes.calls.clear()
    assert main(["train", "run.yaml", "do_train=false", "do_eval=true", "eval_dataset=b"]) == 0
    assert recipes.labels == ["train.run"]


def test_other_commands_hand_over(recipes: Recorder) -> None:
    assert main(["chat", "run.yaml"]) == 0
    assert main(["api", "run.yaml"]) == 0
    assert main(["webchat", "run.yaml"]) == 0
    assert main(["infer", "run.yaml"]) == 0
    assert main(["export", "run.yaml", "--export_dir", "merged"]) == 0
    assert main(["data", "preview", "run.yaml"]) == 0
    recipes.result = CheckResult("sft", "", "t", 9, [])
    assert main(["data", "check", "run.yaml", "do_train=false"]) == 0
    assert recipes.labels == [
        "chat.run",
        "serving.app.run",
        "studio.page.run_chat",
        "infer.run",
        "export.run",
        "preview.preview",
        "data.check",
    ]
    assert [config.command for _, config in recipes.calls] == [
        "chat",
        "api",
        "webchat",
        "infer",
        "export",
        "data",
        "data",
    ]


def test_words_of_data_that_are_no_keys(recipes: Recorder, capsys) -> None:
    assert main(["data", "preview", "run.yaml", "--row", "3", "--ids", "cutoff_len=9"]) == 0
    assert recipes.more.pop() == (3, True)
    assert recipes.calls[-1][1].cutoff_len == 9
    for wrong in (["--row", "0"], ["--row=x"], ["--row"]):
        assert main(["data", "preview", "run.yaml", *wrong]) == 2
        assert "--row" in capsys.readouterr().err
    recipes.result = CheckResult("sft", "", "t", 9, [])
    assert main(["data", "check", "run.yaml", "--json", "--png=a.png"]) == 0
    assert recipes.more.pop() == ("a.png",)
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_json_is_one_object_whatever_happens(recipes: Recorder, capsys) -> None:
    recipes.result = CheckResult("sft", "", "t", 9, [], problems=[Problem("bad", "f, row 2", "mend")])
    assert main(["data", "check", "run.yaml", "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["problems"] == [{"what": "bad", "where": "f, row 2", "fix": "mend"}]
    assert "f, row 2: bad" in shown.err
    recipes.error = DataError([Problem("no such file: x", "dataset")])
    assert main(["data", "check", "run.yaml", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["problems"][0]["what"]) == (False, "no such file: x")
    assert main(["data", "check", "run.yaml", "--json", "lora_rnk=8"]) == 2
    assert "lora_rnk" in json.loads(capsys.readouterr().out)["problems"][0]["what"]


def test_data_convert_takes_two_files_and_a_layout(recipes: Recorder, capsys) -> None:
    recipes.result = "done"
    assert main(["data", "convert", "a.json", "b.json", "to=alpaca", "max_samples=3", "--overwrite"]) == 0
    ((_, config),) = recipes.calls
    assert (config.dataset, config.max_samples) == (("a.json",), 3)
    assert recipes.more == [("b.json", "alpaca", True)]
    assert main(["data", "convert", "a.json", "b.json"]) == 0
    assert recipes.more[-1] == ("b.json", "openai", False)
    for wrong, said in ((["a.json"], "INPUT OUTPUT"), (["a.json", "b.json", "to=alpacca"], "did you mean alpaca")):
        assert main(["data", "convert", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_data_wants_to_know_what(capsys) -> None:
    assert main(["data", "prevew", "run.yaml"]) == 2
    assert "tunesmith data preview" in capsys.readouterr().err
    assert main(["data", "zzz", "run.yaml"]) == 2
    assert "there are preview, check, convert, make, dialogue, split" in capsys.readouterr().err
    assert main(["data"]) == 2


def test_runs_list_of_a_folder_that_is_not_there(capsys, tmp_path: Path) -> None:
    assert main(["runs", "list", "saves"]) == 2
    assert "runs list: there is no folder saves" in capsys.readouterr().err
    (tmp_path / "saves").mkdir()
    assert main(["runs", "list", "saves"]) == 0
    assert "no run below saves yet" in capsys.readouterr().out
    assert main(["runs", "list"]) == 0
    assert "no run below this folder yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("RANK", "first", "RANK must be a number from 0 on, not 'first'"),
        ("TUNESMITH_VERBOSITY", "loud", "TUNESMITH_VERBOSITY must be one of CRITICAL, ERROR, WARNING, INFO, DEBUG"),
        ("LLAMAFACTORY_VERBOSITY", "1", "LLAMAFACTORY_VERBOSITY must be one of"),
    ],
)
def test_variables_that_every_command_reads(capsys, monkeypatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["version"]) == 2
    assert capsys.readouterr().err.startswith(f"error: the environment variable {said}")
    monkeypatch.setenv(variable, "")
    assert main(["version"]) == 0


def test_configuration_errors(recipes: Recorder, capsys) -> None:
    assert main(["train", "run.yaml", "lora_rnk=4"]) == 2
    error = capsys.readouterr().err
    assert "unknown key lora_rnk" in error
    assert "did you mean lora_rank?" in error
    assert recipes.calls == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError([Problem("row 3 is empty", "a.jsonl, row 3")]), 2, "row 3 is empty"),
        (ConfigError([Problem("x")]), 2, "1 configuration problem:"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 2, "error: out: no space is left on the disk"),
        (Interrupted("stopped after a checkpoint", 15), 143, "stopped after a checkpoint"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_errors_leave_with_their_code(recipes: Recorder, capsys, error: BaseException, code: int, said: str) -> None:
    recipes.error = error
    assert main(["train", "run.yaml"]) == code
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text


def test_faults_of_ours_leave_a_file(recipes: Recorder, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recipes.error = RuntimeError("tensor of size 3\nand more")
    assert main(["train", "run.yaml"]) == 1
    text = capsys.readouterr().err
    assert "error: RuntimeError: tensor of size 3\n" in text
    (log,) = tmp_path.glob("tunesmith-*.log")
    assert str(log) in text
    assert "Traceback" in log.read_text()
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    assert main(["train", "run.yaml"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_ours_are_told_where_no_file_can_be_written(recipes: Recorder, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "nowhere")
    recipes.error = RuntimeError("tensor of size 3")
    assert main(["train", "run.yaml"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: RuntimeError: tensor of size 3\n")
    assert text.count("Traceback") == 1
    assert "FileNotFoundError" not in text


def test_explain(capsys) -> None:
    assert main(["explain", "lora_rank", "run.yaml", "lora_rank=5"]) == 0
    assert "5  (lora_rank=5)" in capsys.readouterr().out
    assert main(["explain", "--fsdp"]) == 0
    assert "not yet" in capsys.readouterr().out
    assert main(["explain", "lora_rnk"]) == 2
    assert main(["explain", "run.yaml", "lora_rank"]) == 2
    assert main(["explain"]) == 0


def test_schema(capsys, tmp_path: Path) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["stage"]
    assert main(["schema", "tunesmith.json"]) == 0
    assert json.loads((tmp_path / "tunesmith.json").read_text())["properties"]["stage"]
    assert main(["schema", "a", "b"]) == 2
    assert main(["schema", "-h"]) == 0


def test_env(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    for word in ("tunesmith", "python", "transformers", "cache folder", "memory", "torch is missing"):
        assert word in text
