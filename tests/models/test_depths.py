"""Mixture of depths: which tokens a block works on, what it adds, and that it is answered with as it was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_tiny_llama
from tests.models.test_aids import line_of
from tests.models.tiny import IDS, logits
from torch.nn import functional as F

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models import attention, depths
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.forward import HiddenForward
from tunesmith.models.load import load_base


def routed(opinions: float = 20, **changes: Any) -> Any:
    attention.register()
    model = make_tiny_llama(num_hidden_layers=4, attn_implementation=attention.VARLEN, **changes)
    torch.manual_seed(3)
    depths.convert(model)
    for layer in model.model.layers[1::2]:
        layer.depth_router.weight.data.mul_(opinions)
    return model


def outputs_of(model: Any, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(input, output) of a block in each pass that follows."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.model.layers[number].register_forward_hook(lambda _, given, got: seen.append((given[0], got)))
    return seen


def test_every_second_block_gets_a_router() -> None:
    names = [name for name, _ in routed().named_parameters() if "router" in name]
    assert names == [f"model.layers.{number}.depth_router.weight" for number in (1, 3)]


@torch.no_grad()
def test_a_block_works_on_the_tokens_that_its_router_puts_first_in_their_row() -> None:
    """Rows of 20, 3 and 8 tokens: ceil(L / 8) = 3, 1 and 1 of them; x + 2 sigmoid(r) (block(x) - x)."""
    model = routed().train()
    seen = outputs_of(model, 1)
    HiddenForward(model)(model, line_of(20, 3, 8))
    before, after = seen[-1]
    layer = model.model.layers[1]
    scores = (before @ layer.depth_router.weight.T)[0, :, 0]
    moved = (before != after).any(-1)[0]
    begin = 0
    for length, count in ((20, 3), (3, 1), (8, 1)):
        row = slice(begin, begin + length)
        top = scores[row].topk(count).indices.sort().values
        assert moved[row].nonzero().squeeze(1).tolist() == top.tolist()
        place = torch.arange(length)[top][None]
        angles = model.model.rotary_emb(before, place)
        part = before[:, row][:, top]
        work = type(layer).forward(layer, part, position_embeddings=angles, row_lengths=(count,)) - part
        expected = part + 2 * torch.sigmoid(scores[row][top])[None, :, None] * work
        assert torch.allclose(after[:, row][:, top], expected, atol=1e-6)
        begin += length


@torch.no_grad()
def test_rows_of_a_line_are_chosen_from_apart() -> None:
    model = routed().train()
    forward = HiddenForward(model)
    rows = line_of(20, 3, 8)
    together = forward(model, rows)
    apart = torch.cat([forward(model, row) for row in rows.apart()])
    assert torch.allclose(together, apart, atol=1e-5)


def test_the_routers_loss_by_hand() -> None:
    """Two routed blocks; each the mean over a row of -log sigmoid(r) of chosen tokens, -log(1 - sigmoid(r)) else."""
    model = routed().train()
    seen = {number: outputs_of(model, number) for number in (1, 3)}
    forward = HiddenForward(model)
    for one in seen.values():
        one.clear()
    forward(model, line_of(16, 5))
    weight, rows = forward.take_extra()["router_loss"]
    assert weight == depths.ROUTER_LOSS
    expected = torch.zeros(2)
    for number, passes in seen.items():
        scores = (passes[0][0] @ model.model.layers[number].depth_router.weight.T)[0, :, 0]
        for place, (row, count) in enumerate(zip(scores.split((16, 5)), (2, 1), strict=True)):
            target = torch.zeros(len(row)).index_fill(0, row.topk(count).indices, 1.0)
            expected[place] += F.binary_cross_entropy(torch.sigmoid(row), target) / 2
    assert torch.allclose(rows, expected, atol=1e-6)
    forward(model.eval(), line_of(16, 5))
    assert forward.take_extra() == {}


@torch.no_grad()
def test_in_answering_the_sign_of_the_router_decides_and_nothing_looks_ahead() -> None:
    model = routed().eval()
    ids = torch.randint(3, 400, (1, 24))
    whole = logits(model, ids)
    for length in (1, 7, 23):
        assert torch.allclose(logits(model, ids[:, :length]), whole[:, :length], atol=1e-5)
    model.set_attn_implementation("sdpa")  # ours takes one line
    batch = torch.cat([ids, ids.flip(1)])
    assert torch.allclose(logits(model, batch)[0], whole[0], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_cache_changes_no_answer(implementation: str) -> None:
    model = routed()
    model.set_attn_implementation(implementation)
    model.eval()
    answers = [
        model.generate(IDS, max_new_tokens=12, do_sample=False, use_cache=cached, eos_token_id=None)
        for cached in (True, False)
    ]
    assert torch.equal(*answers)


def test_routers_learn_to_agree_with_the_choice() -> None:
    model = routed(opinions=1).train()
    forward = HiddenForward(model)
    routers = [layer.depth_router.weight for layer in model.model.layers[1::2]]
    optimizer = torch.optim.Adam(routers, lr=5e-2)
    losses = []
    for step in range(100):
        forward(model, line_of(24, 16, seed=step % 4))
        loss = forward.take_extra()["router_loss"][1].sum()
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    seen = outputs_of(model, 3)
    with torch.no_grad():
        forward(model.eval(), line_of(24, 16))
    before, after = seen[-1]
    share = float((before != after).any(-1).float().mean())
    assert 0.02 < share < 0.35  # of the tokens; an eighth is meant, half it was


def test_gradients_reach_routers_and_are_the_same_under_checkpointing() -> None:
    grads = []
    for on in (False, True):
        model = routed().train()
        if on:
            enable_checkpointing(model, RunConfig.from_dict({"gradient_checkpointing": True}))
        HiddenForward(model)(model, line_of(16, 9)).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])
    assert grads[0]["model.layers.3.depth_router.weight"].abs().max() > 0


def load(folder: Path, **keys: Any) -> Any:
    config = RunConfig.from_dict({"model_name_or_path": str(folder)} | keys)
    return load_base(config, folder, torch.float32, attention.VARLEN)


def test_a_saved_model_is_loaded_with_its_routers(tmp_path: Path) -> None:
    model = routed()
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert depths.is_routed(again.config)
    assert torch.allclose(logits(again), logits(model), atol=1e-6)
    dense = shutil.copytree(tmp_path, tmp_path / "cut")
    tensors = load_file(dense / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "layers.3.depth" not in k}, dense / "model.safetensors")
    with pytest.raises(ModelError, match="lacks 1 routers"):
        load(dense)


def test_models_whose_blocks_need_all_tokens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny_llama()
    layer = type(model.model.layers[0])
    plain = layer.forward

    def forward(self: Any, hidden: torch.Tensor, *_: Any, **kwargs: Any) -> torch.Tensor:
        return plain(self, hidden, **kwargs) + kwargs["extra"]  # a name that nobody passes

    monkeypatch.setattr(layer, "forward", forward)
    with pytest.raises(ModelError, match="cannot work on some of the tokens alone"):
        depths.convert(model)
