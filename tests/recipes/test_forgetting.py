"""`tunesmith eval --forgetting` on tiny models: both ways to name them, files, resumption, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.cli.main import main
from tunesmith.evaluation.probe_items import load_probe
from tunesmith.recipes import forgetting

N_ITEMS = 48


@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "load_probe", lambda: load_probe()[:: len(load_probe()) // N_ITEMS][:N_ITEMS])


@pytest.fixture
def worse(tmp_path: Path, tiny_model_dir: str, tiny_tokenizer: Any) -> str:
    """The tiny model with large random steps: whatever it knew is gone, and it is sure of the wrong things."""
    model = make_tiny_llama()
    torch.manual_seed(3)
    for weight in model.parameters():
        weight.data += 0.5 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "worse")
    tiny_tokenizer.save_pretrained(tmp_path / "worse")
    return str(tmp_path / "worse")


@pytest.fixture
def adapter(tmp_path: Path, tiny_model_dir: str) -> str:
    """A LoRA adapter that changes next to nothing."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(make_tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 1e-4 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def test_a_whole_model_beside_the_one_before(tmp_path: Path, tiny_model_dir: str, worse: str, capsys) -> None:
    out = tmp_path / "out"
    words = ["eval", "--forgetting", f"model_name_or_path={worse}", f"ref_model={tiny_model_dir}", f"save_dir={out}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("verdict: forgotten")
    found = json.loads((out / "forgetting.json").read_text())
    assert found["verdict"] == "forgotten"
    assert found["models"]["before"]["model"] == tiny_model_dir
    assert len(found["items"]) == N_ITEMS
    first = found["losses"][0]
    mean = sum(max(-3, min(3, item["before"] - item["after"])) for item in found["items"]) / N_ITEMS
    assert first["loss"] == pytest.approx(mean, abs=1e-5)
    assert (out / "results.log").read_text() == shown
    names = {path.name for path in out.iterdir()} - {"eval_args.yaml", "events.jsonl", ".run.lock"}
    assert names == {"forgetting.json", "probe.jsonl", "probe.state.json", "results.log"}


def test_an_adapter_beside_its_base(tmp_path: Path, tiny_model_dir: str, adapter: str, capsys) -> None:
    words = ["eval", "--forgetting", f"model_name_or_path={tiny_model_dir}", f"adapter_name_or_path={adapter}"]
    assert main([*words, f"save_dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "forgetting.json").read_text())
    assert found["models"] == {
        "before": {"model": tiny_model_dir, "adapters": []},
        "after": {"model": tiny_model_dir, "adapters": [adapter]},
    }
    assert found["verdict"] == "no forgetting"
    assert any(item["before"] != item["after"] for item in found["items"])
    assert abs(found["losses"][0]["loss"]) < 1e-3


def test_a_killed_probe_goes_on(
    tmp_path: Path, tiny_model_dir: str, worse: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    words = ["eval", "--forgetting", f"model_name_or_path={worse}", f"ref_model={tiny_model_dir}"]
    assert main([*words, f"save_dir={tmp_path / 'whole'}"]) == 0
    rows = (tmp_path / "whole" / "probe.jsonl").read_bytes().splitlines(keepends=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "probe.jsonl").write_bytes(b"".join(rows[: N_ITEMS + 5]) + b'{"model": "aft')
    (out / "probe.state.json").write_bytes((tmp_path / "whole" / "probe.state.json").read_bytes())
    asked: list[int] = []
    ask = forgetting.ask_probe
    monkeypatch.setattr(forgetting, "ask_probe", lambda e, t, items: (asked.append(len(items)), ask(e, t, items))[1])
    assert main([*words, f"save_dir={out}"]) == 0
    assert asked == [N_ITEMS - 5]
    assert (out / "forgetting.json").read_bytes() == (tmp_path / "whole" / "forgetting.json").read_bytes()
    capsys.readouterr()
    words[2:] = [f"model_name_or_path={tiny_model_dir}", f"ref_model={worse}"]
    assert main([*words, f"save_dir={out}"]) == 2
    assert "holds results of another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [([], "only one is named"), (["task=mmlu_test", "ref_model=m"], "exclude each other")],
)
def test_what_cannot_be_compared(tiny_model_dir: str, capsys, more: list[str], message: str) -> None:
    assert main(["eval", "--forgetting", f"model_name_or_path={tiny_model_dir}", *more]) == 2
    assert message in capsys.readouterr().err


def test_models_with_other_tokens_are_refused(tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    first = sorted(pre_tokenizers.ByteLevel.alphabet())[0]
    other = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=first, pad_token=first)
    make_tiny_llama().save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    words = ["eval", "--forgetting", f"model_name_or_path={tiny_model_dir}", f"ref_model={tmp_path / 'other'}"]
    assert main(words) == 2
    assert "different tokens" in capsys.readouterr().err
