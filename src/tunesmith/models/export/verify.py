"""Proof that a written folder answers as the live model does: read back from disk and compared, number by number."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from tunesmith.core.errors import ExportError

TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "今天天气很好，我们",
    "Q: What is 17 times 24?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
    "<table><tr><td>1</td>",
    "Die Würde des Menschen ist",
    "1, 1, 2, 3, 5, 8,",
)
N_RANDOM = 4
RANDOM_LENGTH = 32
FP32_TOLERANCE = 1e-4
"""Largest difference of a logit."""
NOISE_FACTOR, NOISE_CAP = 5.0, 1e-3
"""Deep models with large logits differ by more than that from themselves when sums run in another order: then a few
times this noise, measured on the live model, is allowed, but never more than the cap. A wrong merge is far beyond."""
N_ROUNDINGS = 4
"""Draws of the rounding noise; the largest counts."""
RANDOM_SHARE = 1e-3
"""Random ids reach every row of the embedding, but on such nonsense rounding grows without a bound of its own: there a
logit may differ by this share of the largest one. Wrong rows are off by the size of the logits."""
HALF_TOLERANCE = 2e-2
"""Largest difference of a logit as a share of the largest logit: weights were rounded to 8 or 11 bits."""
_SAME = 1e-6
_HEADER_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the live model computed.

    Attributes:
        prompts: token ids.
        logits: (T, V) of each prompt, float32, of base and adapter together.
        base_logits: the same with the adapter off; None when there was none.
        noise: largest difference of a logit of a text that rounding makes: texts in one batch against each alone, as
            they are and with every layer's output off by up to one rounding, as after a merge.
        n_texts: how many of the prompts are texts; random ids follow.
    """

    prompts: list[list[int]]
    logits: list[torch.Tensor]
    base_logits: list[torch.Tensor] | None
    noise: float
    n_texts: int


def probe_prompts(tokenizer: PreTrainedTokenizerBase, n_rows: int) -> tuple[list[list[int]], list[list[int]]]:
    """Texts of many kinds, and random ids over all of the vocabulary, the last rows (added tokens) among them.

    Args:
        tokenizer: encodes the texts.
        n_rows: rows of the embedding.
    """
    texts = [list(tokenizer(text, add_special_tokens=True)["input_ids"]) for text in TEXTS]
    rng = random.Random(0)
    known = min(n_rows, len(tokenizer))
    ids = [[rng.randrange(known) for _ in range(RANDOM_LENGTH)] for _ in range(N_RANDOM)]
    ids[0][-8:] = range(max(0, known - 8), known) if known >= 8 else ids[0][-8:]
    return [prompt for prompt in texts if prompt], ids


@torch.inference_mode()
def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """(T, V) float32 logits of each prompt, computed alone, on the CPU."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=model.device)
        found.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return found


@torch.inference_mode()
def _batched_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """As `logits_of`, in one batch padded on the right, where a causal model's logits do not see the padding."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits.float().cpu()
    return [row[: len(prompt)] for row, prompt in zip(logits, prompts, strict=True)]


def _rounded_logits(model: Any, prompts: Sequence[Sequence[int]], seed: int) -> list[torch.Tensor]:
    """As `_batched_logits`, each number that a layer gives off at random by up to one rounding."""
    generator = torch.Generator(device=model.device).manual_seed(seed)

    def off(_: torch.nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        draw = torch.rand(output.shape, generator=generator, device=output.device, dtype=torch.float32) - 0.5
        return output + output * (draw * torch.finfo(output.dtype).eps).to(output.dtype)

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    hooks = [module.register_forward_hook(off) for module in leaves]
    try:
        return _batched_logits(model, prompts)
    finally:
        for hook in hooks:
            hook.remove()


def take_reference(model: Any, tokenizer: PreTrainedTokenizerBase) -> Reference:
    """Computes the reference before the adapter is merged away."""
    model.eval()
    texts, random_ids = probe_prompts(tokenizer, model.get_input_embeddings().weight.shape[0])
    prompts = texts + random_ids
    logits = logits_of(model, prompts)
    base = None
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            base = logits_of(model, prompts)
    others = [_batched_logits(model, texts), *(_rounded_logits(model, texts, seed) for seed in range(N_ROUNDINGS))]
    noise = max(distance(logits[: len(texts)], other) for other in others)
    return Reference(prompts, logits, base, noise, len(texts))


def distance(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """Largest difference of two logits over all prompts; infinite where one is not finite or shapes differ."""
    worst = 0.0
    for ours, theirs in zip(left, right, strict=True):
        if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
            return float("inf")
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst


def check_adapter_weights(folder: Path) -> None:
    """Refuses an adapter that changes nothing: all lora_B zero, and no other trained tensor in it.

    Raises:
        ExportError: the merge would equal the base.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return
    try:
        with safe_open(file, framework="pt") as handle:
            names = list(handle.keys())
            changes = any(
                ("lora_" not in name or "lora_B" in name or "lora_embedding_B" in name)
                and bool(handle.get_tensor(name).any())
                for name in names
            )
    except SafetensorError as error:
        raise ExportError(f"{file} cannot be read, it is cut off or damaged: {error}") from error
    if not changes:
        raise ExportError(
            f"the merge equals the base: every lora_B in {file} is zero; it was never trained, or saved wrongly"
        )


def verify(
    folder: Path, reference: Reference, *, dtype: torch.dtype, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Opens the folder afresh and compares its logits with the reference.

    Args:
        folder: as written.
        reference: of the live model.
        dtype: that every floating tensor must have on disk.
        trust_remote_code: as for loading any model.

    Returns:
        The numbers of the report.

    Raises:
        ExportError: a file is damaged, a tensor is missing, left over or of another dtype, or the logits differ.
    """
    tensors = check_files(folder, dtype)
    model = reopen(folder, torch.float32, trust_remote_code)
    written = logits_of(model, reference.prompts)
    largest = max(float(logits.abs().max()) for logits in reference.logits)
    count = reference.n_texts
    drift = distance(written[:count], reference.logits[:count])
    tolerance = _tolerance(reference.noise, largest, dtype)
    random_drift = distance(written[count:], reference.logits[count:])
    random_tolerance = max(tolerance, RANDOM_SHARE * largest)
    for found, allowed, what in ((drift, tolerance, "texts"), (random_drift, random_tolerance, "random tokens")):
        if not found <= allowed:
            raise ExportError(
                f"the written model does not answer as the live one: logits differ by {found:.3g} on {what}, "
                f"allowed are {allowed:.3g}; nothing was put into export_dir"
            )
    report: dict[str, Any] = {
        "prompts": len(reference.prompts),
        "max_logit_difference": drift,
        "allowed_difference": tolerance,
        "max_logit_difference_random_tokens": random_drift,
        "arithmetic_noise": reference.noise,
        "largest_logit": largest,
        "tensors": tensors,
    }
    if reference.base_logits is not None:
        change = distance(written, reference.base_logits)
        if change <= _SAME * max(1.0, largest):
            raise ExportError(f"the merge equals the base: no logit differs by more than {change:.3g}")
        report |= {"difference_from_base": change, "effect_below_rounding": change <= max(drift, random_drift)}
    return report


def _tolerance(noise: float, largest: float, dtype: torch.dtype) -> float:
    """How far a logit may be off."""
    if dtype != torch.float32:
        return HALF_TOLERANCE * largest
    return max(FP32_TOLERANCE, min(NOISE_FACTOR * noise, NOISE_CAP))


def check_files(folder: Path, dtype: torch.dtype) -> int:
    """Every shard whole and of the dtype wanted, every tensor of the index there; returns the number of tensors."""
    found: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - no mapping
                    stored = handle.get_slice(name).get_dtype()
                    if stored.startswith(("F", "BF")) and stored != _HEADER_DTYPES[dtype]:
                        raise ExportError(f"{file.name}: {name} was written as {stored}, not {_HEADER_DTYPES[dtype]}")
                    found.add(name)
        except (SafetensorError, OSError) as error:
            raise ExportError(f"{file.name} is damaged: {error}") from error
    index = folder / "model.safetensors.index.json"
    expected = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else found
    if expected - found:
        raise ExportError(
            f"{len(expected - found)} tensors of the index are in no shard: {sorted(expected - found)[0]}"
        )
    if not found:
        raise ExportError(f"no weights were written to {folder}")
    return len(found)


def reopen(folder: Path, dtype: torch.dtype, trust_remote_code: bool, attention: str | None = None) -> Any:
    """Opens a written folder as any other program would.

    Raises:
        ExportError: it cannot be opened, or tensors are missing, left over or of another shape.
    """
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            attn_implementation=attention,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ExportError(f"the written folder cannot be opened again: {str(error).splitlines()[0]}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            names = sorted(str(name) for name in info[what])
            raise ExportError(f"the written folder has {len(names)} {what.replace('_', ' ')}, such as {names[0]}")
    return model.eval()
