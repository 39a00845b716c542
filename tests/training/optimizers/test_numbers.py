"""One step of each optimizer against the arithmetic of its paper, worked out here by other means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.training.trainer import StepTrainer

Make = Callable[..., StepTrainer]
LR = 1e-3
MATRIX = "model.layers.0.mlp.up_proj.weight"


def weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def first_step(make_trainer: Make, **keys: Any) -> tuple[StepTrainer, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A trainer after one step, its weights before, and the gradients of that step (from plain SGD at rate 1)."""
    common = {"max_steps": 1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "learning_rate": LR}
    plain = make_trainer("sgd", **{**common, "optim": "sgd", "learning_rate": 1.0})
    before = weights(plain)
    plain.train()
    gradients = {name: before[name] - value for name, value in weights(plain).items()}
    trainer = make_trainer("run", **{**common, **keys})
    trainer.train()
    return trainer, before, gradients


def test_galore_projects_on_the_gradients_main_directions(make_trainer: Make) -> None:
    """G (64, 32) = U S V'. R = G V_r; Adam's first step is R / |R|; the update is scale * lr * (R / |R|) V_r'."""
    keys: dict[str, Any] = {"use_galore": True, "galore_rank": 4, "galore_scale": 2.0}
    trainer, before, gradients = first_step(make_trainer, **keys)
    gradient = gradients[MATRIX].double()
    assert gradient.shape == (64, 32)
    directions = torch.linalg.eigh(gradient.T @ gradient).eigenvectors[:, -4:]
    small = gradient @ directions
    expected = before[MATRIX].double() - 2.0 * LR * (small / small.abs()) @ directions.T
    got = weights(trainer)[MATRIX].double()
    assert torch.allclose(got, expected, atol=2e-5)
    # Signs and order of the directions cancel out; what no target names gets Adam's plain first step.
    norm = "model.norm.weight"
    sign = gradients[norm].sign()
    assert torch.allclose(weights(trainer)[norm], before[norm] - LR * sign, atol=1e-5)


def test_apollo_scales_the_gradient_by_its_rows_in_a_random_space(make_trainer: Make) -> None:
    """G (64, 32), P random (4, 32) / sqrt(4): R = G P'; row i of the update is sqrt(scale) |A_i| / |R_i| G_i,

    with Adam's first step A = R / (|R| + eps / sqrt(1 - beta2)).
    """
    keys: dict[str, Any] = {"use_apollo": True, "apollo_rank": 4, "apollo_scale": 9.0}
    trainer, before, gradients = first_step(make_trainer, **keys)
    gradient = gradients[MATRIX]
    weight = trainer.model.get_parameter(MATRIX)
    seeds = [
        number
        for number, w in enumerate((w for g in trainer.own_optimizer.param_groups for w in g["params"]), 1)
        if w is weight
    ]
    noise = torch.randn((4, 32), generator=torch.Generator().manual_seed(seeds[0])) / 2
    small = gradient @ noise.T
    adam = small / (small.abs() + 1e-8 / math.sqrt(1e-3))
    factor = 3.0 * adam.norm(dim=1, keepdim=True) / small.norm(dim=1, keepdim=True)
    assert torch.allclose(weights(trainer)[MATRIX], before[MATRIX] - LR * factor * gradient, atol=1e-5)


def test_muon_makes_the_gradient_orthogonal(make_trainer: Make) -> None:
    """Newton-Schulz maps each singular value s of G / |G| by s -> a s + b s^3 + c s^5, five times; U and V stay.

    torch does it in bfloat16, hence the tolerance. The update is 0.2 sqrt(max(rows, columns)) of that.
    """
    trainer, before, gradients = first_step(make_trainer, use_muon=True)
    gradient = gradients[MATRIX].double()
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    values = values / gradient.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    expected = LR * 0.2 * math.sqrt(64) * left @ torch.diag(values) @ right
    moved = before[MATRIX].double() - weights(trainer)[MATRIX].double()
    assert (moved - expected).norm() / expected.norm() < 0.03
    assert values.min() > 0.3  # it is near orthogonal indeed
    embedding = "model.embed_tokens.weight"
    used = gradients[embedding].abs() > 1e-6
    adam = LR * gradients[embedding].sign()
    assert torch.allclose((before[embedding] - weights(trainer)[embedding])[used], adam[used], atol=2e-5)


def test_lomo_is_gradient_descent(make_trainer: Make) -> None:
    trainer, before, gradients = first_step(make_trainer, optim="lomo", weight_decay=0.1)
    expected = before[MATRIX] * (1 - LR * 0.1) - LR * gradients[MATRIX]
    assert torch.allclose(weights(trainer)[MATRIX], expected, atol=1e-7)


def test_adalomo_divides_by_a_factored_second_moment(make_trainer: Make) -> None:
    """Step 1: V_ij = r_i c_j / mean(r) with the means of g^2 over rows and columns; u = g / sqrt(V) with its RMS held
    to 1; the step is lr max(1e-3, RMS(w)) u."""
    trainer, before, gradients = first_step(make_trainer, optim="adalomo")
    gradient, weight = gradients[MATRIX].double(), before[MATRIX].double()
    rows, columns = gradient.square().mean(1, keepdim=True), gradient.square().mean(0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update /= max(1.0, update.square().mean().sqrt().item())
    step = LR * max(1e-3, weight.square().mean().sqrt().item())
    assert torch.allclose(weights(trainer)[MATRIX].double(), weight - step * update, atol=1e-7)


def test_adam_mini_has_one_step_size_a_head_or_row(make_trainer: Make) -> None:
    """Step 1: g over the root mean square of its block: a head of (8, 32) in queries, a row in the MLP."""
    trainer, before, gradients = first_step(make_trainer, use_adam_mini=True)
    got = weights(trainer)
    rows = gradients[MATRIX]
    expected = before[MATRIX] - LR * rows / rows.square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(got[MATRIX], expected, atol=1e-5)
    name = "model.layers.1.self_attn.q_proj.weight"
    heads = gradients[name].view(4, -1)
    expected = before[name] - LR * (heads / heads.square().mean(1, keepdim=True).sqrt()).view(32, 32)
    assert torch.allclose(got[name], expected, atol=1e-5)


def test_badam_on_a_block_is_adamw_on_that_block(make_trainer: Make) -> None:
    keys: dict[str, Any] = {"max_steps": 4, "weight_decay": 0.01}
    frozen = make_trainer("freeze", finetuning_type="freeze", freeze_trainable_layers=1, **keys)
    block = make_trainer("badam", use_badam=True, badam_start_block=1, badam_switch_interval=-1, **keys)
    frozen.train()
    block.train()
    for name, value in weights(frozen).items():
        assert torch.allclose(value, weights(block)[name], atol=1e-7), name


@pytest.mark.parametrize(
    ("keys", "visited"),
    [
        ({"badam_switch_mode": "ascending"}, [0, 1, 0, 1]),
        ({"badam_switch_mode": "descending"}, [1, 0, 1, 0]),
        ({"badam_switch_mode": "ascending", "badam_start_block": 1}, [1, 0, 1, 0]),
        ({"badam_switch_mode": "fixed", "badam_start_block": 0}, [0, 0, 0, 0]),
        ({"badam_switch_interval": -1}, [0, 0, 0, 0]),
    ],
)
def test_badam_goes_through_the_blocks_in_order(make_trainer: Make, keys: dict[str, Any], visited: list[int]) -> None:
    from transformers import TrainerCallback

    seen = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = weights(trainer)
            moved = {name.split(".")[2] for name, value in now.items() if not torch.equal(value, last[0][name])}
            seen.append(moved)
            last[0] = now

    settings = {"use_badam": True, "badam_switch_interval": 2, "max_steps": 8, **keys}
    trainer = make_trainer(callbacks=[Watch()], **settings)
    last = [weights(trainer)]
    trainer.train()
    assert seen == [{str(block)} for block in visited for _ in range(2)]


def test_badam_in_half_precision_keeps_exact_copies(make_trainer: Make) -> None:
    """bfloat16 has 8 bits: steps far below a weight's last bit are lost one by one, but add up in the copy."""
    trainer = make_trainer(use_badam=True, badam_switch_interval=-1, learning_rate=1e-5, max_steps=3)
    trainer.model.to(torch.bfloat16)
    optimizer = trainer.create_optimizer()
    weight, exact = next((w, e) for w, e in optimizer._pairs if w.dim() == 2)
    start = exact.detach().clone()
    assert exact is not weight
    for _ in range(3):
        for low, _high in optimizer._pairs:
            low.grad = torch.ones_like(low)
        optimizer.step()
    assert torch.allclose(exact, start - 3e-5, atol=1e-7)
    assert torch.equal(weight, exact.to(torch.bfloat16))
    saved = optimizer.state_dict()
    assert all(torch.equal(a, e) for a, (_, e) in zip(saved["exact"], optimizer._pairs, strict=True))


def test_badam_ratio_of_1_is_adamw_and_of_a_tenth_moves_a_tenth(make_trainer: Make) -> None:
    keys: dict[str, Any] = {"max_steps": 3, "weight_decay": 0.01, "badam_switch_interval": 50}
    every = make_trainer("freeze", finetuning_type="freeze", max_steps=3, weight_decay=0.01)
    whole = make_trainer("whole", use_badam=True, badam_mode="ratio", badam_update_ratio=1.0, **keys)
    before = weights(whole)
    every.train()
    whole.train()
    for name, value in weights(every).items():
        assert torch.allclose(value, weights(whole)[name], atol=1e-6), name
    for mask in ("adjacent", "scatter"):
        part = make_trainer(
            mask, use_badam=True, badam_mode="ratio", badam_update_ratio=0.1, badam_mask_mode=mask, **keys
        )
        part.train()
        moved = (weights(part)[MATRIX] != before[MATRIX]).flatten().nonzero().flatten()
        assert len(moved) == int(0.1 * 64 * 32)
        is_line = bool((moved.diff() == 1).all())
        assert is_line == (mask == "adjacent")


def test_schedule_free_saves_the_average_of_its_points(make_trainer: Make) -> None:
    """z_1 = z_0 - lr sign(g) and the average after one step is z_1: what AdamW's first step gives, too.

    After it the model goes on from 0.1 z + 0.9 x, which is the same point at step 1; from step 2 on they part.
    """
    trainer, before, gradients = first_step(make_trainer, optim="schedule_free_adamw")
    used = gradients[MATRIX].abs() > 1e-6
    expected = before[MATRIX] - LR * gradients[MATRIX].sign()
    assert torch.allclose(weights(trainer)[MATRIX][used], expected[used], atol=1e-5)
    longer = make_trainer("longer", optim="schedule_free_adamw", max_steps=4, save_strategy="steps", save_steps=3)
    longer.train()
    from safetensors.torch import load_file

    saved = load_file(f"{longer.args.output_dir}/checkpoint-3/model.safetensors")[MATRIX]
    state = torch.load(f"{longer.args.output_dir}/checkpoint-3/optimizer.pt", weights_only=True)
    index = next(
        i
        for i, w in enumerate(w for g in longer.own_optimizer.param_groups for w in g["params"])
        if w is longer.model.get_parameter(MATRIX)
    )
    point, newest = state["points"][index], state["inner"]["state"][index]["z"]
    assert torch.allclose(point, 0.1 * newest + 0.9 * saved, atol=1e-6)
    assert not torch.allclose(point, saved, atol=1e-6)


def test_eight_bit_adam_steps_as_adam_does(make_trainer: Make) -> None:
    keys: dict[str, Any] = {"max_steps": 6, "optim_args": None}
    exact, rounded = make_trainer("32", **keys), make_trainer("8", optim="adamw_bnb_8bit", **keys)
    before = weights(exact)
    exact.train()
    rounded.train()
    apart = torch.cat([(weights(exact)[n] - weights(rounded)[n]).flatten() for n in before])
    moved = torch.cat([(weights(exact)[n] - before[n]).flatten() for n in before])
    assert apart.norm() < 0.05 * moved.norm()


def test_a_loaded_projection_is_as_small_as_it_says(make_trainer: Make) -> None:
    trainer = make_trainer(use_galore=True, galore_rank=4, max_steps=1)
    trainer.train()
    for state in trainer.own_optimizer.state.values():
        if "projector" in state:
            matrix = state["projector"].ortho_matrix
            assert matrix.untyped_storage().nbytes() == matrix.nbytes


def test_layerwise_is_the_same_arithmetic(make_trainer: Make) -> None:
    for family in ("galore", "apollo"):
        keys = {f"use_{family}": True, f"{family}_rank": 4, "max_grad_norm": 0.0, "max_steps": 3}
        together, apart = make_trainer("a", **keys), make_trainer("b", **keys, **{f"{family}_layerwise": True})
        together.train()
        apart.train()
        for name, value in weights(together).items():
            assert torch.equal(value, weights(apart)[name]), (family, name)
        norms = [[e["grad_norm"] for e in t.state.log_history if "grad_norm" in e] for t in (together, apart)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
        assert all(weight.grad is None for weight in apart.model.parameters())


def test_a_value_head_is_in_every_block(make_trainer: Make) -> None:
    from tunesmith.models.value_head import attach_value_head

    trainer = make_trainer(use_badam=True, badam_switch_interval=1)
    head = attach_value_head(trainer.model, [])
    optimizer: Any = trainer.create_optimizer()
    for block in ("0", "1"):
        trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        assert {name.split(".")[2] for name in trained if ".layers." in name} == {block}
        assert {"v_head.summary.weight", "v_head.summary.bias"} < trained
        for weight in trainer.model.parameters():
            weight.grad = torch.ones_like(weight) if weight.requires_grad else None
        before = head.summary.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(before, head.summary.weight)
