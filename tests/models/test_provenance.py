"""The fingerprint of a base, and what becomes of an adapter on another one."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.core.errors import ModelError
from tunesmith.models.provenance import check_provenance, fingerprint, read_provenance, write_provenance


@pytest.fixture
def base(tmp_path, tiny_model_dir):
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "base"))


def changed(base, target, name, edit):
    shutil.copytree(base, target)
    tensors = load_file(base / "model.safetensors")
    tensors[name] = edit(tensors[name])
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_same_weights_same_print(base, tmp_path):
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(base)
    (copy / "README.md").write_text("other")
    assert fingerprint(copy) == fingerprint(base)


def test_a_merge_changes_it(base, tmp_path):
    """Only one inner matrix differs, as after merging an adapter: sizes, names, embeddings and norms are the same."""
    other = changed(
        base, tmp_path / "merged", "model.layers.1.mlp.up_proj.weight", lambda w: w + 0.01 * torch.randn_like(w)
    )
    assert fingerprint(other) != fingerprint(base)


def test_a_cut_file_is_an_error(base):
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off"):
        fingerprint(base)
    file.write_bytes(b"123")
    with pytest.raises(ModelError, match="cut off"):
        fingerprint(base)
    file.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        fingerprint(base)


def adapter_of(folder, base, **more):
    folder.mkdir()
    save_file({"a": torch.randn(3)}, folder / "adapter_model.safetensors")
    write_provenance(folder, base_model="the-base", base_path=base, template="qwen", **more)
    return folder


def test_note(base, tmp_path):
    first = adapter_of(tmp_path / "first", base)
    second = adapter_of(tmp_path / "second", base, stacked_adapters=[first])
    note = read_provenance(second)
    assert note is not None
    assert (note["base_model"], note["template"]) == ("the-base", "qwen")
    assert note["base_fingerprint"] == fingerprint(base)
    assert [entry["fingerprint"] for entry in note["stacked_adapters"]] == [fingerprint(first)]


def test_mismatch(base, tmp_path, caplog):
    adapter = adapter_of(tmp_path / "adapter", base)
    check_provenance(adapter, base)
    other = changed(base, tmp_path / "other", "model.layers.0.mlp.up_proj.weight", lambda w: -w)
    with pytest.raises(ModelError, match=r"was trained on the-base.*force_base: true"):
        check_provenance(adapter, other)
    check_provenance(adapter, other, force=True)


def test_stacked_adapters_must_be_below(base, tmp_path):
    first = adapter_of(tmp_path / "first", base)
    second = adapter_of(tmp_path / "second", base, stacked_adapters=[first])
    check_provenance(second, base, below=[first])
    check_provenance(first, base, below=[second])
    check_provenance(second, base)
    with pytest.raises(ModelError, match=r"was trained on top of .*first"):
        check_provenance(second, base, below=[])


def test_adapters_from_elsewhere_are_unchecked(tmp_path):
    assert read_provenance(tmp_path) is None
    check_provenance(tmp_path, tmp_path)
    (tmp_path / "tunesmith.json").write_text("{")
    with pytest.raises(ModelError, match="not readable JSON"):
        check_provenance(tmp_path, tmp_path)
