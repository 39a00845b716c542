"""Two places of a LoRA step written with fewer passes over memory: the adapted linear layer and the gated MLP.

On a CPU a third of a LoRA step is not matrix products but reading and writing activations. What is here gives the same
numbers (of layers that are alike, one is checked against its own forward on a probe) with fewer temporaries.
Quantised layers, DoRA, dropout and other adapters keep peft's own code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.models.linear import is_plain

_ROWS = 64
"""Tokens of the MLP gate at a time: what is read and written in between stays in the cache of a core."""


class _LoraLinear(torch.autograd.Function):
    """y = x W' + b + s (x A') B', with x the only activation that is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        base: nn.Linear,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        small = flat @ down.T
        out = F.linear(flat, base.weight, base.bias)
        out.addmm_(small, up.T, alpha=scaling)
        ctx.save_for_backward(flat, small, down, up)
        ctx.base, ctx.scaling, ctx.shape = base, scaling, x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, small, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_small = (grad @ up).mul_(ctx.scaling)
        grad_up = (grad.T @ small).mul_(ctx.scaling)
        grad_down = grad_small.T @ flat
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ ctx.base.weight
            grad_x.addmm_(grad_small, down)
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, grad_down, grad_up, None


class _GatedSilu(torch.autograd.Function):
    """silu(gate) * up, keeping the two inputs and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        wide, (g, u) = _rows(out), (_rows(gate), _rows(up))
        for start in range(0, wide.shape[0], _ROWS):
            part = slice(start, start + _ROWS)
            torch.mul(F.silu(g[part]), u[part], out=wide[part])
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """With s = sigmoid(g): d silu(g)/dg = s (1 + g (1 - s))."""
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        out_gate, out_up = _rows(grad_gate), _rows(grad_up)
        g, u, d = _rows(gate), _rows(up), _rows(grad.contiguous())
        for start in range(0, g.shape[0], _ROWS):
            part = slice(start, start + _ROWS)
            s = torch.sigmoid(g[part])
            silu = g[part] * s
            torch.mul(d[part], silu, out=out_up[part])
            slope = silu.sub_(silu * s).add_(s)  # s + g s (1 - s)
            torch.mul(slope.mul_(u[part]), d[part], out=out_gate[part])
        return grad_gate, grad_up


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1, tensor.shape[-1])


def _is_plain_lora(module: Any) -> bool:
    """A peft LoRA layer that is one adapter on a float `nn.Linear`, without dropout, DoRA or other variants."""
    adapters = getattr(module, "active_adapters", None)
    base: Any = getattr(module, "base_layer", None)
    if type(module).__name__ != "Linear" or not adapters or len(adapters) != 1 or not is_plain(base):
        return False
    name = adapters[0]

    if (
        name not in getattr(module, "lora_A", ())
        or module.merged
        or module.disable_adapters
        or module.use_dora.get(name)
    ):
        return False
    plain = isinstance(module.lora_dropout[name], nn.Identity) and not getattr(module, "lora_variant", {})
    same_dtype = base.weight.dtype == module.lora_A[name].weight.dtype and not base.weight.requires_grad
    return plain and same_dtype and module.lora_A[name].bias is None and module.lora_B[name].bias is None


def _lora_forward(module: Any) -> Any:
    name = module.active_adapters[0]
    base, original = module.base_layer, module.forward

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        is_mixed = x.dtype != base.weight.dtype or torch.is_autocast_enabled(x.device.type)  # bf16_full_eval
        if args or kwargs or module.merged or module.disable_adapters or is_mixed:
            return original(x, *args, **kwargs)
        down, up = module.lora_A[name].weight, module.lora_B[name].weight
        return _LoraLinear.apply(x, base, down, up, module.scaling[name])

    return forward


def _is_gated_mlp(module: nn.Module) -> bool:
    names = ("gate_proj", "up_proj", "down_proj", "act_fn")
    return all(hasattr(module, name) for name in names) and type(module.act_fn).__name__ in ("SiLU", "SiLUActivation")


def _mlp_forward(module: Any) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return module.down_proj(_GatedSilu.apply(module.gate_proj(x), module.up_proj(x)))

    return forward


@torch.no_grad()
def _agrees(module: nn.Module, replacement: Any, width: int) -> bool:
    """Whether the replacement gives the module's own numbers on a probe of five tokens."""
    own = list(module.parameters())
    dtype = next((parameter.dtype for parameter in own if parameter.is_floating_point()), torch.float32)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, 5, width, generator=generator).to(own[0].device, dtype)
    was_training = module.training
    module.eval()  # dropout inside would make any two passes differ
    try:
        own, new = module(probe), replacement(probe)
    except (RuntimeError, TypeError, ValueError):
        return False
    finally:
        module.train(was_training)
    return own.shape == new.shape and torch.allclose(own, new, atol=1e-5, rtol=1e-4)


def fuse(model: nn.Module) -> int:
    """Replaces the forward passes that can be replaced; saving, loading and merging see no difference.

    Args:
        model: a PeftModel in training, on its device.

    Returns:
        How many layers were replaced.
    """
    count = 0
    checked: dict[tuple[Any, ...], bool] = {}
    for module in model.modules():
        replacement: Any = None
        if _is_plain_lora(module):
            replacement, width = _lora_forward(module), module.base_layer.in_features
        elif _is_gated_mlp(module):
            first = getattr(module.gate_proj, "base_layer", module.gate_proj)
            replacement, width = _mlp_forward(module), getattr(first, "in_features", 0)
        if replacement is None or not width:
            continue
        kind = _kind(module, width)
        if kind not in checked:
            checked[kind] = _agrees(module, replacement, width)
        if checked[kind]:
            module.forward = replacement
            count += 1
    return count


def _kind(module: nn.Module, width: int) -> tuple[Any, ...]:
    """What decides how a layer computes: classes inside it, shapes and types of its weights."""
    classes = tuple((type(part), "forward" in vars(part)) for part in module.modules())
    return (width, classes, *((weight.shape, weight.dtype) for weight in module.parameters()))
