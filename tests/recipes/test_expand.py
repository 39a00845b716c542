"""`tunesmith expand`: added blocks change nothing at first, and they alone are trained afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, adapted, logits, make_tiny_qwen2_moe, trained
from transformers import AutoModelForCausalLM

from tunesmith.cli.main import main
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import apply_finetuning, load_adapter
from tunesmith.models.expand import expand as expand_in_memory
from tunesmith.models.expand import new_numbers


def expand(base: str, target: Path, count: int, *words: str) -> int:
    return main(
        ["expand", "--model_name_or_path", base, "--output_dir", str(target), "--num_expand", str(count), *words]
    )


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def saved(folder: Path, tokenizer: Any, model: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_new_blocks_stand_after_each_group() -> None:
    """32 layers in 8 groups of 4: the fifth, tenth, ... of 40."""
    assert new_numbers(32, 8) == [4, 9, 14, 19, 24, 29, 34, 39]
    assert new_numbers(2, 1) == [2]
    with pytest.raises(ModelError, match=r"num_expand: 12 layers do not fall into 5 equal groups; \[1, 2, 3, 4, 6, 12"):
        new_numbers(12, 5)


def test_added_blocks_change_no_bit() -> None:
    model = make_tiny_llama()
    before = logits(model)
    assert expand_in_memory(model, 2) == [1, 3]
    assert torch.equal(logits(model), before)
    assert len(model.model.layers) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_written_model_answers_as_its_base(tmp_path: Path, tiny_tokenizer: Any, dtype: Any) -> None:
    base = saved(tmp_path / "base", tiny_tokenizer, make_tiny_llama().to(dtype))
    assert expand(base, tmp_path / "pro", 2) == 0
    fields = json.loads((tmp_path / "pro" / "config.json").read_text())
    assert (fields["num_hidden_layers"], fields["expanded_blocks"]) == (4, [1, 3])
    assert (tmp_path / "pro" / "tokenizer.json").is_file()
    model = opened(tmp_path / "pro")
    assert model.dtype == dtype
    assert torch.allclose(logits(model), logits(opened(Path(base))), atol=1e-6)
    assert not torch.equal(logits(trained(model.float())), logits(opened(Path(base)).float()))


def test_lists_with_an_entry_a_layer_and_experts_grow_along(tmp_path: Path, tiny_tokenizer: Any) -> None:
    base = saved(tmp_path / "moe", tiny_tokenizer, make_tiny_qwen2_moe())
    assert expand(base, tmp_path / "pro", 1) == 0
    fields = json.loads((tmp_path / "pro" / "config.json").read_text())
    assert len(fields["layer_types"]) == fields["num_hidden_layers"] == 3
    assert torch.allclose(logits(opened(tmp_path / "pro")), logits(opened(Path(base))), atol=1e-6)


def test_what_cannot_be_expanded_is_refused(
    tmp_path: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expand(tiny_model_dir, tmp_path / "pro", 3) == 2
    assert "equal groups" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert expand(tiny_model_dir, tmp_path / "full", 1) == 2
    assert "set overwrite_output_dir: true" in capsys.readouterr().err
    assert expand(tiny_model_dir, tmp_path / "full", 1, "--overwrite_output_dir") == 0
    assert main(["expand", "--model_name_or_path", tiny_model_dir]) == 2
    assert "num_expand is missing" in capsys.readouterr().err


def config(**keys: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "tiny", "use_llama_pro": True} | keys)


def layers_of(names: list[str]) -> set[str]:
    return {name.split("layers.")[1].split(".")[0] for name in names if "layers." in name}


@pytest.fixture
def expanded(tmp_path: Path, tiny_model_dir: str) -> Path:
    assert expand(tiny_model_dir, tmp_path / "pro", 2) == 0
    return tmp_path / "pro"


def test_freeze_trains_the_new_blocks_alone(expanded: Path, tmp_path: Path) -> None:
    model = apply_finetuning(opened(expanded), config(finetuning_type="freeze"), [], torch.float32)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert layers_of(names) == {"1", "3"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(model)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert layers_of(moved) == {"1", "3"}
    assert all("layers." in name for name in moved)
    model.save_pretrained(tmp_path / "out")
    assert torch.allclose(logits(opened(tmp_path / "out")), logits(model), atol=1e-6)


def test_lora_hangs_on_the_new_blocks_alone(expanded: Path, tmp_path: Path) -> None:
    model = apply_finetuning(opened(expanded), config(lora_target="q_proj,down_proj"), [], torch.float32)
    assert adapted(model) == [
        f"model.layers.{n}.{part}" for n in (1, 3) for part in ("mlp.down_proj", "self_attn.q_proj")
    ]
    trained(model).save_pretrained(tmp_path / "out")
    assert torch.allclose(logits(load_adapter(opened(expanded), tmp_path / "out")), logits(model), atol=1e-6)


def test_models_that_others_expanded_are_counted_by_groups() -> None:
    """Without a note in the model: 4 layers, 2 of them added, so the second and the fourth."""
    keys = {"finetuning_type": "freeze", "freeze_trainable_layers": 2}
    model = apply_finetuning(make_tiny_llama(num_hidden_layers=4), config(**keys), [], torch.float32)
    assert layers_of([name for name, p in model.named_parameters() if p.requires_grad]) == {"1", "3"}
    for count in (3, 4, -1):
        with pytest.raises(ModelError, match="use_llama_pro"):
            apply_finetuning(
                make_tiny_llama(num_hidden_layers=4), config(**keys | {"freeze_trainable_layers": count}), [], IDS.dtype
            )


def test_a_count_that_contradicts_the_model_is_refused(expanded: Path) -> None:
    keys = {"finetuning_type": "freeze", "freeze_trainable_layers": 1}
    with pytest.raises(ModelError, match="was expanded by 2 blocks"):
        apply_finetuning(opened(expanded), config(**keys), [], torch.float32)
