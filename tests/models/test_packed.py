"""Packed weights give the numbers of the plain ones, under adapters too; what is not plain stays as it is."""

import pytest
import torch
from tests.conftest import make_tiny_llama
from torch import nn

from tunesmith.models import packed

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


@torch.inference_mode()
def logits(model, rows=3):
    return model(input_ids=torch.arange(rows * 7).view(rows, 7) % 400).logits


def test_logits_are_the_same():
    model = make_tiny_llama(attention_bias=True).eval()
    before = logits(model)
    assert packed.pack(model) == 2 * 7 + 1
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    assert packed.pack(model) == 0
    assert all("forward" not in name for name in model.state_dict())


def test_adapters_hang_on_packed_layers(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_tiny_llama(), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    before = logits(model)
    packed.pack(model)
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)


def test_half_precision_and_little_memory_stay_plain(monkeypatch):
    assert packed.pack(make_tiny_llama().to(torch.bfloat16)) == 0
    monkeypatch.setattr(packed, "_SHARE", 0.0)
    assert packed.pack(make_tiny_llama()) == 0


def test_a_kernel_that_disagrees_is_not_used(monkeypatch):
    monkeypatch.setattr(packed, "_packed_forward", lambda module: lambda x: x.new_zeros(*x.shape[:-1], 3))
    model = make_tiny_llama().eval()
    before = logits(model)
    assert packed.pack(model) == 0
    assert torch.equal(logits(model), before)
