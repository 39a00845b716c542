"""`tunesmith export`: adapters merged into their base, written, read back and compared, and only then put in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import log
from tunesmith.core.errors import ExportError
from tunesmith.core.runs import write_atomic, write_json

if TYPE_CHECKING:
    import torch

    from tunesmith.config.schema import RunConfig

REPORT_FILE = "export_report.json"
_logger = log.get_logger(__name__)


def run(config: RunConfig) -> Path:
    """Merges `adapter_name_or_path` in order, writes `export_dir`, and proves that it answers as the live model does.

    The merge is computed in float32 and rounded once, to `infer_dtype` or with auto to the base's own dtype.

    Returns:
        The folder.

    Raises:
        ExportError: the target is in use, the base is quantised, or what was written differs from the live model.
        ModelError: model or adapter cannot be found, or do not belong together.
    """
    from tunesmith.data.settings import is_compat, settings_of
    from tunesmith.models import hub
    from tunesmith.models.export.conformance import prove, write_conformance
    from tunesmith.models.export.template import set_chat_template, write_modelfile
    from tunesmith.models.export.verify import check_adapter_weights, take_reference, verify
    from tunesmith.models.export.writer import (
        check_room,
        check_target,
        set_end_tokens,
        staged,
        write_tokenizer,
        write_weights,
    )
    from tunesmith.models.load import load_model, stored_dtype
    from tunesmith.models.rope import context_of
    from tunesmith.models.tokenizer import end_token_ids, load_template_for, load_tokenizer
    from tunesmith.models.value_head import copy_value_head

    target = _target(config)
    config = _unquantised(config)
    base = hub.resolve_model(
        config.model_name_or_path or "",
        revision=config.model_revision,
        cache_dir=config.cache_dir,
        token=config.hf_hub_token,
    )
    adapters = [hub.resolve_adapter(name, token=config.hf_hub_token) for name in config.adapter_name_or_path]
    check_target(target, [base.path, *adapters], config.overwrite_export)
    dtype = _dtype(config, base.path)
    check_room(target, base.path, dtype.itemsize / stored_dtype(base.path).itemsize)
    for adapter in adapters:
        check_adapter_weights(adapter)

    tokenizer = load_tokenizer(config)
    template = load_template_for(config, tokenizer)
    on_cpu = config.use_cpu or config.export_device == "cpu"
    model = load_model(config.replace(infer_dtype="float32", use_cpu=on_cpu), tokenizer, trainable=False)
    reference = take_reference(model, tokenizer)
    if adapters:
        _logger.info("merging %s", ", ".join(str(adapter) for adapter in adapters))
        model = model.merge_and_unload(safe_merge=True)
    ends = end_token_ids(template, tokenizer, model.generation_config)
    with staged(target) as folder:
        set_chat_template(tokenizer, template, is_compat(config))
        set_end_tokens(model, tokenizer, ends)
        context = context_of(model.config)
        write_weights(model, folder, dtype=dtype, shard_gb=config.export_size)
        if copy_value_head([*reversed(adapters), base.path], folder):
            _logger.info("its value head goes with it: the scores of a reward model, or the critic of PPO")
        write_tokenizer(tokenizer, folder)
        write_conformance(folder, tokenizer, template, settings_of(config), ends)
        write_atomic(folder / "Modelfile", write_modelfile(config, tokenizer, template, ends, context))
        del model
        _logger.info("reading it back and comparing")
        prove(folder, _read_back(folder, config), template)
        numbers = verify(folder, reference, dtype=dtype, trust_remote_code=config.trust_remote_code)
        about = {
            "base": str(config.model_name_or_path),
            "adapters": list(config.adapter_name_or_path),
            "template": template.name,
            "template_compat": config.template_compat,
            "end_tokens": tokenizer.convert_ids_to_tokens(list(ends)),
            "dtype": str(dtype).removeprefix("torch."),
            "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        }
        write_json(folder / REPORT_FILE, about | numbers)
    _say(target, about | numbers)
    return target


def _read_back(folder: Path, config: RunConfig) -> Any:
    from tunesmith.models.tokenizer import read_tokenizer

    return read_tokenizer(
        folder,
        trust_remote_code=config.trust_remote_code,
        use_fast=config.use_fast_tokenizer,
        split_special_tokens=config.split_special_tokens,
    )


def _target(config: RunConfig) -> Path:
    """Where to write, after refusing what cannot be done at all."""
    if not config.export_dir:
        raise ExportError("export_dir: name the folder to write")
    if config.export_legacy_format:
        raise ExportError(
            "export_legacy_format: transformers 5 writes safetensors only (all current programs read them); drop it"
        )
    return Path(config.export_dir).expanduser()


def _unquantised(config: RunConfig) -> RunConfig:
    """An adapter trained on a quantised base is merged into the base as it was: rounded weights would lose it."""
    if config.quantization_bit is None:
        return config
    _logger.info(
        "quantization_bit is for training and answering: the adapter is merged into the unquantised base, in float32"
    )
    return config.replace(quantization_bit=None)


def _dtype(config: RunConfig, base: Path) -> torch.dtype:
    """The dtype of the written weights: `infer_dtype`, or the base's own; never bf16 out of fp32 unasked."""
    import torch

    from tunesmith.models.load import stored_dtype

    fields: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if fields.get("mixture_of_depths"):
        raise ExportError(
            f"{config.model_name_or_path} is a mixture of depths, which no other program can run: there is nothing to "
            "export it for. Tunesmith itself uses the trained folder as model_name_or_path"
        )
    quantised = fields.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "some method")
        raise ExportError(
            f"{config.model_name_or_path} is quantised ({method}): merging into rounded weights loses the adapter. "
            "Name the original, unquantised base in model_name_or_path; the adapter fits it"
        )
    chosen = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}.get(config.infer_dtype)
    stored: torch.dtype = stored_dtype(base)
    return chosen or stored


def _say(target: Path, report: dict[str, Any]) -> None:
    if report.get("effect_below_rounding"):
        _logger.warning(
            "the adapter changes logits by %.3g, rounding to %s by %.3g: export with infer_dtype: float32 to keep it",
            report["difference_from_base"],
            report["dtype"],
            report["max_logit_difference"],
        )
    _logger.info(
        "exported to %s (%.0f MB, %s): logits equal the live model's within %.2g on %d prompts",
        target,
        report["bytes"] / 1e6,
        report["dtype"],
        report["max_logit_difference"],
        report["prompts"],
    )
