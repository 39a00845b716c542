"""What is not built yet is refused, and only that."""

from __future__ import annotations

import pytest

from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import ConfigError

REFUSED = {
    "use_kt": True,
    "fp8_enable_fsdp_float8_all_gather": True,
    "deepspeed": "ds.json",
    "fsdp": "full_shard",
    "optim": "adamw_apex_fused",
    "push_to_hub": True,
    "hub_token": "x",
    "enable_torch_profiler": True,
    "use_swanlab": True,
    "logging_dir": "logs",
    "torch_compile": True,
    "enable_jit_checkpoint": True,
    "auto_find_batch_size": True,
    "tensor_model_parallel_size": 2,
    "use_mca": True,
    "ray_num_workers": 2,
    "image_max_pixels": 5,
    "use_hyper_parallel": True,
}
ACCEPTED = {
    "stage": "dpo",
    "use_dft_loss": True,
    "label_smoothing_factor": 0.1,
    "use_rslora": True,
    "train_from_scratch": True,
    "init_special_tokens": "desc_init",
    "use_dora": True,
    "finetuning_type": "oft",
    "use_llama_pro": True,
    "pissa_init": True,
    "loraplus_lr_ratio": 16,
    "shift_attn": True,
    "rope_scaling": "yarn",
    "use_unsloth": True,
    "enable_liger_kernel": True,
    "moe_aux_loss_coef": 0.1,
    "neftune_noise_alpha": 5,
    "compute_accuracy": True,
    "early_stopping_steps": 3,
    "include_effective_tokens_per_second": True,
    "enable_thinking": False,
    "tool_format": "qwen",
    "ddp_timeout": 180000000,
    "preprocessing_num_workers": 16,
    "report_to": "swanlab",
    "optim": "paged_adamw_8bit",
    "lr_scheduler_type": "cosine_with_min_lr",
    "quantization_method": "bitsandbytes",
    "low_cpu_mem_usage": False,
    "mix_strategy": "interleave_under",
    "streaming": True,
    "buffer_size": 9,
    "tokenized_path": "x",
    "use_galore": True,
    "use_muon": True,
    "vllm_maxlen": 9,
    "infer_backend": "vllm",
    "use_kv_cache": False,
    "export_quantization_bit": 4,
    "task": "mmlu_test",
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_unbuilt_features_are_refused_in_training(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({name: value})
    (problem,) = caught.value.problems
    assert "not built yet: " in problem.what
    assert name in problem.what


@pytest.mark.parametrize(("name", "value"), ACCEPTED.items())
def test_built_features_and_other_commands_keys_are_accepted(name: str, value: object) -> None:
    RunConfig.from_dict({name: value})


def test_every_command_refuses_its_own() -> None:
    for command, settings in {
        "chat": {"use_kt": True},
        "export": {"export_quantization_bit": 4},
        "data": {"ms_hub_token": "x"},
        "eval": {"ms_hub_token": "x"},
    }.items():
        with pytest.raises(ConfigError, match="not built yet"):
            RunConfig.from_dict(settings, command=command)


def test_data_of_every_stage_can_be_looked_at() -> None:
    for stage in ("pt", "rm", "ppo", "dpo", "kto"):
        assert RunConfig.from_dict({"stage": stage}, command="data").stage == stage
        if stage in KEYS["stage"].not_yet_values:
            with pytest.raises(ConfigError, match=f"{stage} is not built yet"):
                RunConfig.from_dict({"stage": stage}, command="train")
        else:
            assert RunConfig.from_dict({"stage": stage}, command="train").stage == stage


def test_defaults_are_never_refused() -> None:
    for known in KEYS.values():
        RunConfig.from_dict({known.name: known.default}, command=known.commands[0])
