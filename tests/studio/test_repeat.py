"""Clones and sweeps as the tab Runs asks for them: what is checked is what is queued."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, TunesmithError
from tunesmith.core.run_state import RunState, read_state
from tunesmith.core.runs import Run
from tunesmith.recipes import queue
from tunesmith.recipes.queue import enqueue, waiting
from tunesmith.recipes.runs import differences, load_resolved
from tunesmith.studio.repeat import clone_of, sweep_of
from tunesmith.studio.views import comparison
from tunesmith.studio.workspace import Workspace

FORM = {"model_name_or_path": "smollm2-135m", "dataset": "identity", "template": "auto", "do_train": True}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    return Workspace.at(tmp_path)


@pytest.fixture
def trained(workspace: Workspace) -> RunState:
    """A finished training, resumed on its way."""
    folder = Path("saves/a")
    keys = {**FORM, "output_dir": str(folder), "resume_from_checkpoint": "true"}
    with Run(folder).working("train"):
        (folder / "training_args.yaml").write_text(RunConfig.from_dict(keys).to_yaml())
    return state(folder)


def state(folder: Path) -> RunState:
    found = read_state(folder)
    assert found
    return found


def test_a_clone_differs_in_what_was_changed(workspace: Workspace, trained: RunState) -> None:
    folder = clone_of(trained, "saves/b", {"learning_rate": "3e-4", "lora_rank": "4"}, workspace)
    assert folder == workspace.root / "saves/b"
    configs = [load_resolved(Path("saves/a")), load_resolved(folder)]
    assert differences(configs) == {"learning_rate": [5e-5, 3e-4], "lora_rank": [8, 4]}
    assert configs[1].resume_from_checkpoint is None, "it begins anew"
    assert configs[1].output_dir == "saves/b"


def test_other_work_is_cloned_and_compared_too(workspace: Workspace) -> None:
    words = ["model_name_or_path=smollm2-135m", "task=mmlu_test", "template=fewshot", "save_dir=saves/asked"]
    enqueue(Path(), words, command="eval")
    clone_of(state(Path("saves/asked")), "saves/again", {"n_shot": "1"}, workspace)
    assert [(run.folder.name, run.command) for run in waiting(Path())] == [("asked", "eval"), ("again", "eval")]
    assert comparison(workspace, ["saves/asked", "saves/again"])["keys"] == {"n_shot": ["5", "1"]}
    with pytest.raises(TunesmithError, match="is no training"):
        sweep_of(state(Path("saves/asked")), "", {}, {"n_shot": ["1", "2"]}, workspace)


def test_a_sweep_queues_every_combination(workspace: Workspace, trained: RunState) -> None:
    choices = {"learning_rate": ["1e-4", "2e-4"], "lora_rank": ["4", "8"]}
    folders = sweep_of(trained, "", {"max_steps": "3"}, choices, workspace)
    names = [folder.name for folder in folders]
    assert names[0] == "learning_rate=1e-4_lora_rank=4"
    assert {folder.parent for folder in folders} == {workspace.root / "saves/a-sweep"}
    configs = [load_resolved(folder) for folder in folders]
    assert {(config.learning_rate, config.lora_rank) for config in configs} == {
        (1e-4, 4), (1e-4, 8), (2e-4, 4), (2e-4, 8),
    }  # fmt: skip
    assert {config.max_steps for config in configs} == {3}


OUTSIDE = "/etc/passwd.json"


@pytest.mark.parametrize(("key", "good"), [("dataset", "identity"), ("model_name_or_path", "smollm2-135m")])
def test_no_change_leads_out_of_the_workspace(workspace: Workspace, trained: RunState, key: str, good: str) -> None:
    with pytest.raises(TunesmithError, match="outside the workspace"):
        clone_of(trained, "saves/c", {key: OUTSIDE}, workspace)
    with pytest.raises(TunesmithError, match="outside the workspace"):
        sweep_of(trained, "", {}, {"lora_rank": ["4", "8"], key: [good, OUTSIDE]}, workspace)
    assert not waiting(Path())


def test_no_run_is_written_outside_the_workspace(workspace: Workspace, trained: RunState) -> None:
    with pytest.raises(TunesmithError, match="outside the workspace"):
        clone_of(trained, OUTSIDE, {}, workspace)
    with pytest.raises(TunesmithError, match="outside the workspace"):
        sweep_of(trained, "/etc", {}, {"lora_rank": ["4", "8"]}, workspace)
    assert not waiting(Path())
    folder = clone_of(trained, "saves/c", {"output_dir": OUTSIDE}, workspace)  # the field of the folder is what counts
    assert folder == workspace.root / "saves/c"


def test_one_wrong_value_queues_nothing(workspace: Workspace, trained: RunState) -> None:
    with pytest.raises(ConfigError, match="lora_rank"):
        sweep_of(trained, "", {}, {"lora_rank": ["8", "none_such"]}, workspace)
    with pytest.raises(ConfigError, match="environment"):
        clone_of(trained, "saves/c", {"run_name": "${env:HF_TOKEN}"}, workspace)
    with pytest.raises(ConfigError, match="is a secret"):
        clone_of(trained, "saves/c", {"hf_hub_token": "hf_abc"}, workspace)
    with pytest.raises(TunesmithError, match="an output folder of its own"):
        clone_of(trained, " ", {}, workspace)
    assert not waiting(Path())
