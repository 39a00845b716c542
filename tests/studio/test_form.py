"""The form: whatever a key may hold goes to the field, to YAML and back unchanged; nothing leaves the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.coerce import MismatchError, coerce
from tunesmith.config.load import load_config
from tunesmith.config.schema import KEYS, Key, RunConfig
from tunesmith.core.errors import ConfigError
from tunesmith.data.catalog import resolve
from tunesmith.studio.form import config_of, read_yaml, text_of, to_yaml, value_of
from tunesmith.studio.suggest import suggestions
from tunesmith.studio.workspace import Workspace

OPEN = [known for known in KEYS.values() if not known.secret]
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ["null", "None", "true", "no", "~", '"', '"x"', "'x'", "[a]", "{a: 1}", "a: b", "# x", " x ", "a\nb", "1e-4", "08"]
)
INSIDE = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def values(known: Key) -> st.SearchStrategy[Any]:
    """Anything that the key takes, and some that it does not; `coerce` tells them apart."""
    parts: list[st.SearchStrategy[Any]] = [st.just(known.default)]
    if known.choices:
        one = st.sampled_from(known.choices)
        parts.append(st.lists(one, max_size=3).map(tuple) if known.is_list else one)
    for kind in known.kinds:
        if kind == "bool":
            parts.append(st.booleans())
        elif kind == "int":
            parts.append(st.integers(-(10**6), 10**6))
        elif kind == "float":
            parts.append(st.floats(-1e9, 1e9, allow_nan=False))
        elif kind == "dict[str, Any]":
            parts.append(st.dictionaries(TEXTS, INSIDE, max_size=3))
        elif kind == "tuple[float, ...]":
            parts.append(st.lists(st.floats(0, 1), max_size=3))
        elif not known.choices:
            parts.append(st.lists(TEXTS, max_size=3) if kind.startswith("tuple") else TEXTS)
    if known.nullable:
        parts.append(st.none())
    return st.one_of(parts)


@pytest.mark.parametrize("known", OPEN, ids=lambda known: known.name)
@settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_every_key_survives_yaml_form_yaml(known: Key, data: st.DataObject) -> None:
    try:
        value = coerce(known, data.draw(values(known)))
    except MismatchError:
        return
    if "${" in str(value):
        return
    text = text_of(known, value)
    assert value_of(known, text) == value
    written = to_yaml({known.name: text})
    assert read_yaml(written) == {known.name: text}


def test_the_form_says_what_the_command_line_reads(tmp_path: Path) -> None:
    files = sorted(Path("examples").rglob("*.yaml"))
    files = [file for file in files if "dataset_info" not in file.name and "/data/" not in str(file)]
    assert len(files) > 20
    for file in files:
        said = read_yaml(file.read_text(encoding="utf-8"), str(file))
        again = tmp_path / "again.yaml"
        again.write_text(to_yaml(said), encoding="utf-8")
        for path in (file, again):
            assert said == read_yaml(path.read_text(encoding="utf-8"))


def test_the_form_makes_the_same_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path("examples/train_lora/smollm2_lora_sft.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(text, encoding="utf-8")
    config = config_of(read_yaml(text), "train", Workspace.at(tmp_path))
    assert config == load_config(["train.yaml"], "train")
    assert isinstance(config, RunConfig)


def test_references_stay_references(tmp_path: Path) -> None:
    text = "run_name: first\noutput_dir: saves/${run_name}\nlora_rank: ${lora_alpha}\nlora_alpha: 4\n"
    said = read_yaml(text)
    assert said["output_dir"] == "saves/${run_name}"
    assert "${run_name}" in to_yaml(said)
    said |= {"model_name_or_path": "smollm2-135m", "dataset": "identity", "template": "auto", "do_train": "true"}
    config = config_of(said, "train", Workspace.at(tmp_path))
    assert (config.output_dir, config.lora_rank) == ("saves/first", 4)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        config_of({"lora_rank": "x", "learnin_rate": "1", "seed": "-"}, "train", Workspace.at(tmp_path))
    assert len(found.value.problems) == 3
    assert "did you mean learning_rate" in str(found.value)


@pytest.mark.parametrize("text", ["- a", "a: [", "lora_rank: x", "no_such_key: 1", "seed: 1\nseed: 2", "hub_token: x"])
def test_what_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        read_yaml(text)


def test_the_page_says_nothing_about_packaged_data(
    tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.at(tmp_path)
    said = {"model_name_or_path": "smollm2-135m", "dataset": "identity, identity", "do_train": "true"}
    with caplog.at_level("INFO", logger="tunesmith"):
        suggestions(workspace)
        config = config_of({**said, "output_dir": "saves/out"}, "train", workspace)
        assert "packaged data sets" not in caplog.text
        resolve(config.dataset, config.dataset_dir)
    assert caplog.text.count("packaged data sets") == caplog.text.count("named 2 times") == 1
