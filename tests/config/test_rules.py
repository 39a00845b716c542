"""Rules between keys: each one has a case that breaks it and says so at the right line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.load import load_config
from tunesmith.core.errors import ConfigError

BROKEN = [
    ("max_steps: 0", 5, "max_steps 0 makes no step"),
    ("seed: 4294967296", 5, "seed must be at most 4294967295"),
    ("stage: grpo\nreward_funcs: nowhere.py:score", 6, "reward_funcs: there is no file nowhere.py"),
    ("learning_rate: 0", 5, "learning_rate 0 changes no weight"),
    ("mask_history: true\ntrain_on_prompt: true", 5, "exclude each other"),
    ("val_size: 0.1\neval_dataset: b", 5, "exclude each other"),
    ("val_size: 1.5", 5, "neither a share below 1 nor a whole number"),
    ("do_predict: true\nval_size: 2", 5, "needs predict_with_generate"),
    ("do_predict: true\npredict_with_generate: true", 5, "needs evaluation data"),
    ("eval_strategy: steps", 5, "eval_strategy needs evaluation data"),
    ("do_eval: true", 5, "do_eval needs evaluation data"),
    ("predict_with_generate: true\ncompute_accuracy: true\nval_size: 1", 6, "exclude each other"),
    ("finetuning_type: full\nuse_dora: true", 6, "use_dora is for finetuning_type lora"),
    ("finetuning_type: full\nadapter_name_or_path: a", 6, "cannot be used with finetuning_type full"),
    ("finetuning_type: freeze\nfreeze_trainable_layers: 0", 6, "no weight would be trained"),
    ("init_special_tokens: desc_init", 5, "needs new_special_tokens_config"),
    ("new_special_tokens_config: nowhere.yaml", 5, "there is no file nowhere.yaml"),
    ("lora_target: []", 5, "nothing would be trained"),
    ("pissa_convert: true", 5, "does nothing without pissa_init"),
    ("loftq_init: true", 5, "this base is not quantised"),
    ("quantization_bit: 4\nloftq_init: true\nuse_dora: true", 6, "loftq_init and use_dora exclude each other"),
    ("quantization_bit: 4\nloftq_init: true\nstage: kto", 6, "starts away from the rounded base"),
    ("quantization_bit: 4\npissa_init: true", 6, "which quantised weights do not allow"),
    ("rope_scaling: yarn\nuse_unsloth: true", 6, "use_unsloth and rope_scaling exclude each other"),
    ("pissa_iter: 4", 5, "does nothing without pissa_init"),
    ("pissa_init: true\nadapter_name_or_path: a", 5, "pissa_init starts a new adapter"),
    ("pissa_init: true\npissa_convert: true\nuse_dora: true", 6, "which a DoRA adapter cannot become"),
    ("finetuning_type: oft\noft_rank: 4\noft_block_size: 8", 6, "give each other"),
    ("finetuning_type: oft\noft_block_size: 0", 6, "are both 0"),
    ("finetuning_type: oft\noft_target: []", 6, "nothing would be trained"),
    ("finetuning_type: oft\nuse_rslora: true", 6, "use_rslora is for finetuning_type lora"),
    ("bf16_full_eval: true\nfp16_full_eval: true", 5, "exclude each other"),
    ("disable_gradient_checkpointing: true\nuse_unsloth_gc: true", 6, "which disable_gradient_checkpointing forbids"),
    ("moe_aux_loss_coef: 0.1\ngradient_checkpointing_kwargs: {use_reentrant: true}", 6, "hides the routers"),
    ("loraplus_lr_embedding: 1e-3", 5, "does nothing without loraplus_lr_ratio"),
    ("loraplus_lr_ratio: 16\nuse_muon: true", 5, "which this optimizer does not tell apart"),
    ("mixture_of_depths: convert", 5, "trains too little of it"),
    ("liger_kernel_config: {rope: false}", 5, "does nothing without enable_liger_kernel"),
    ("shift_attn: true\nflash_attn: fa2", 5, "not through flash_attn: fa2"),
    ("stage: dpo\nshift_attn: true", 6, "shift_attn is for stages pt and sft"),
    ("use_asft_loss: true\nshift_attn: true", 6, "shift_attn is for stages pt and sft"),
    ("stage: kto\npissa_init: true", 6, "no untouched base under the adapter"),
    ("finetuning_type: full\nuse_llama_pro: true", 6, "trains added blocks only"),
    ("bf16: true\nfp16: true", 5, "exclude each other"),
    ("bf16: true\ndtype: float16", 6, "exclude each other"),
    ("save_steps: 1.5", 5, "neither a share below 1 nor a whole number"),
    ("load_best_model_at_end: true", 5, "needs evaluation while training"),
    ("load_best_model_at_end: true\neval_strategy: epoch\nval_size: 1", 5, "save_strategy"),
    (
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 3\nsave_steps: 10\nval_size: 1",
        8,
        "multiple of eval_steps",
    ),
    ("early_stopping_steps: 3", 5, "needs evaluation while training"),
    ("save_strategy: best", 5, "needs evaluation while training"),
    ("lr_scheduler_type: reduce_lr_on_plateau", 5, "needs evaluation while training"),
    ("dataloader_prefetch_factor: 2", 5, "needs dataloader_num_workers"),
    ("gradient_checkpointing: true\ndisable_gradient_checkpointing: true", 5, "both asked for and forbidden"),
    ("report_to: [none, wandb]", 5, "stands alone"),
    ("model_name_or_path: ./nowhere", 1, "there is no ./nowhere"),
    ("model_name_or_path: /nowhere/m", 1, "there is no /nowhere/m"),
    ("model_name_or_path: nowhere.gguf", 1, "there is no nowhere.gguf"),
    ("adapter_name_or_path: saves/a/b", 5, "there is no saves/a/b"),
    ("resume_from_checkpoint: nowhere", 5, "there is no folder nowhere"),
    ("resume_from_checkpoint: true", 5, "there is no checkpoint-N"),
]


@pytest.mark.parametrize(("text", "line", "what"), BROKEN)
def test_rules_that_are_broken(problems, text: str, line: int, what: str) -> None:
    if text.startswith("model_name_or_path"):
        found = problems("", text.replace(": ", "="))
        assert len(found) == 1
        assert what in found[0].what
        return
    found = problems(text)
    assert len(found) == 1, found
    assert what in found[0].what
    assert found[0].where == f"run.yaml:{line}"


@pytest.mark.parametrize(
    "text",
    [
        "val_size: 1",
        "val_size: 0.999\neval_strategy: epoch",
        "eval_dataset: b\ndo_predict: true\npredict_with_generate: true",
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 5\nsave_steps: 10\nval_size: 1",
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 0.1\nsave_steps: 0.2\nval_size: 1",
        "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: epoch\nval_size: 1",
        "bf16: true\npure_bf16: true",
        "warmup_steps: 0.1",
        "model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct",
    ],
)
def test_rules_that_hold(load, text: str) -> None:
    words = [text.replace(": ", "=")] if text.startswith("model") else []
    assert load("" if words else text, *words).do_train


def test_nothing_at_all_is_said_at_once(write) -> None:
    write("")
    with pytest.raises(ConfigError) as caught:
        load_config([], "train")
    text = str(caught.value)
    for word in ("model_name_or_path is missing", "do_train: true", "output_dir is missing"):
        assert word in text
    assert all(problem.where == "command line" for problem in caught.value.problems)


def test_evaluation_while_training_does_not_train(write) -> None:
    name = write("model_name_or_path: m\noutput_dir: o\ndataset: a\nval_size: 1\neval_strategy: steps\n")
    with pytest.raises(ConfigError, match="nothing is to be done"):
        load_config([name], "train")


def test_training_without_data(write) -> None:
    name = write("model_name_or_path: m\noutput_dir: o\ndo_train: true\n")
    with pytest.raises(ConfigError, match="do_train needs a dataset"):
        load_config([name], "train")


def test_export_and_data_have_rules_of_their_own(write) -> None:
    name = write("model_name_or_path: m\n")
    with pytest.raises(ConfigError, match="export_dir is missing"):
        load_config([name], "export")
    with pytest.raises(ConfigError, match="dataset is missing"):
        load_config([name], "data")
    assert load_config([name], "chat").model_name_or_path == "m"
    assert load_config([name, "dataset=a"], "data").output_dir is None


@pytest.mark.parametrize(
    ("command", "key", "more"),
    [
        ("train", "output_dir", "do_train: true\ndataset: a"),
        ("export", "export_dir", ""),
        ("eval", "save_dir", "task: mmlu_test"),
        ("infer", "save_name", "dataset: a"),
        ("infer", "matrix_save_name", "dataset: a"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_out_before_the_work(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, key: str, more: str
) -> None:
    (tmp_path / "file").touch()
    name = write(f"model_name_or_path: m\n{more}\n")
    assert load_config([name, f"{key}={tmp_path / 'new' / 'place'}"], command)
    with pytest.raises(ConfigError, match=rf"{key}: .*file is a file, not a folder"):
        load_config([name, f"{key}={tmp_path / 'file' / 'below'}"], command)
    wrong = tmp_path / "file" if key.endswith("_dir") else tmp_path
    with pytest.raises(ConfigError, match=rf"{key}: {wrong} is a f.*, not a f"):
        load_config([name, f"{key}={wrong}"], command)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=rf"{key}: .* cannot be written to"):
        load_config([name, f"{key}={tmp_path / 'new' / 'place'}"], command)


def test_weights_without_a_checkpoint_are_not_written_over(load, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert load()
    (out / "adapter_model.safetensors").touch()
    with pytest.raises(ConfigError, match="holds trained weights and no checkpoint"):
        load()
    assert load("overwrite_output_dir: true")
    assert load("do_eval: true\neval_dataset: b", "do_train=false")
    (out / "checkpoint-tmp").mkdir()
    with pytest.raises(ConfigError):
        load()
    (out / "checkpoint-30").mkdir()
    assert load()
    assert load("resume_from_checkpoint: true").resume_from_checkpoint is True
    assert load("resume_from_checkpoint: out/checkpoint-30").resume_from_checkpoint == "out/checkpoint-30"


def test_a_misspelt_checkpoint_names_its_neighbour(problems, tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-30").mkdir(parents=True)
    (found,) = problems("resume_from_checkpoint: out/checkpoint-3")
    assert "out/checkpoint-30" in found.fix


def test_exports_are_not_written_over(write, tmp_path: Path) -> None:
    name = write("model_name_or_path: m\nexport_dir: merged\n")
    assert load_config([name], "export")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "model.safetensors").touch()
    with pytest.raises(ConfigError, match="holds a model already"):
        load_config([name], "export")
    assert load_config([name, "--overwrite_export"], "export")
    with pytest.raises(ConfigError, match="weights are read from"):
        load_config([name, "--overwrite_export", "model_name_or_path=./merged"], "export")


def test_folders_that_are_files(write) -> None:
    name = write("model_name_or_path: m\nexport_dir: run.yaml\noutput_dir: run.yaml\ndo_train: true\ndataset: a\n")
    for command in ("train", "export"):
        with pytest.raises(ConfigError, match="is a file"):
            load_config([name], command)
