"""The files and command lines that tutorials print, with their placeholders filled in."""

from __future__ import annotations

import pytest

from tunesmith.config.build import Checks
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError

NO_PATHS = Checks(paths=False)

TRAIN = """
model_name_or_path: ../model_hub/Qwen2.5-7B-Instruct
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
flash_attn: auto
lora_rank: 8
lora_target: all
dataset_dir: data/dataset/alpaca  # with a comment
dataset: alpaca_clue_train
template: qwen  # Qwen (1-2.5)
cutoff_len: 1024
max_samples: 15000
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 8
output_dir: data/outputs/Qwen2.5-7B-Instruct-clue-ner-lora-sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
#eval_dataset:
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""
MERGE = """
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
adapter_name_or_path: saves/llama3-8b/lora/sft
template: llama3
finetuning_type: lora

### export
export_dir: models/llama3_lora_sft
export_size: 2
export_device: cpu
export_legacy_format: false
"""
PREDICT = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
adapter_name_or_path: saves/llama3-8b/lora/sft
stage: sft
do_predict: true
finetuning_type: lora
eval_dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
max_samples: 50
overwrite_cache: true
preprocessing_num_workers: 16
output_dir: saves/llama3-8b/lora/predict
overwrite_output_dir: true
per_device_eval_batch_size: 1
predict_with_generate: true
ddp_timeout: 180000000
"""
CHAT = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
adapter_name_or_path: saves/llama3-8b/lora/sft
template: llama3
finetuning_type: lora
infer_backend: huggingface #choices： [huggingface, vllm]
"""
EVAL = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
adapter_name_or_path: saves/llama3-8b/lora/sft
finetuning_type: lora
task: mmlu_test  # choices: [mmlu_test, ceval_validation, cmmlu_test]
template: fewshot
lang: en
n_shot: 5
save_dir: saves/llama3-8b/lora/eval
batch_size: 4
"""
GPTQ = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
template: llama3
export_dir: models/llama3_gptq
export_quantization_bit: 4
export_quantization_dataset: data/c4_demo.json
export_size: 2
export_device: cpu
export_legacy_format: false
"""
TRAIN_FLAGS = """
--stage sft --do_train True --model_name_or_path baichuan-inc/Baichuan2-7B-Chat --preprocessing_num_workers 16
--finetuning_type lora --template baichuan2 --flash_attn auto --dataset_dir llama-factory/data/mine --dataset a,b
--cutoff_len 1024 --learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000 --per_device_train_batch_size 2
--gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0 --logging_steps 5 --save_steps 100
--warmup_steps 0 --optim adamw_torch --packing False --report_to none --output_dir saves/Baichuan2/lora/train
--fp16 True --plot_loss True --ddp_timeout 180000000 --include_num_input_tokens_seen True --lora_rank 8
--lora_alpha 16 --lora_dropout 0 --lora_target all
"""
PREDICT_FLAGS = """
--stage sft --do_predict --model_name_or_path /llama3/Meta-Llama-3-8B-Instruct
--adapter_name_or_path ./saves/LLaMA3-8B/lora/sft --eval_dataset alpaca_gpt4_zh,identity,adgen_local
--dataset_dir ./data --template llama3 --finetuning_type lora --output_dir ./saves/LLaMA3-8B/lora/predict
--overwrite_cache --overwrite_output_dir --cutoff_len 1024 --preprocessing_num_workers 16
--per_device_eval_batch_size 1 --max_samples 20 --predict_with_generate True
"""
SCORE_FLAGS = r"""
--stage sft --model_name_or_path Qwen/Qwen2-7B-Instruct-AWQ --preprocessing_num_workers 16 --finetuning_type lora
--quantization_method bitsandbytes --template qwen --flash_attn auto --dataset_dir data
--eval_dataset huanhuan_chat,ruozhiba_gpt4 --cutoff_len 1024 --max_samples 100000 --per_device_eval_batch_size 2
--predict_with_generate True --max_new_tokens 512 --top_p 0.7 --temperature 0.95
--output_dir saves\Qwen2-7B-int4-Chat\lora\eval_2024-08-24-10-42-52 --do_predict True
--adapter_name_or_path saves\Qwen2-7B-int4-Chat\lora\train_2024-08-18-14-43-59
"""
API_FLAGS = """
--model_name_or_path ../model_hub/Qwen2.5-7B-Instruct
--adapter_name_or_path data/outputs/Qwen2.5-7B-Instruct-clue-ner-lora-sft --infer_backend huggingface --template qwen
--finetuning_type lora
"""


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (TRAIN, "train"),
        (TRAIN, "data"),
        (TRAIN, "chat"),
        (MERGE, "export"),
        (MERGE, "chat"),
        (PREDICT, "train"),
        (CHAT, "chat"),
        (CHAT, "webchat"),
        (CHAT, "api"),
        (EVAL, "chat"),
        (EVAL, "eval"),
    ],
)
def test_files(write, text: str, command: str) -> None:
    config = load_config([write(text)], command, NO_PATHS)
    assert config.model_name_or_path
    assert config.explicit


def test_values_of_the_training_file(write) -> None:
    config = load_config([write(TRAIN)], "train", NO_PATHS)
    expected = {
        "lora_target": ("all",),
        "dataset": ("alpaca_clue_train",),
        "learning_rate": 1e-4,
        "warmup_ratio": 0.1,
        "bf16": True,
        "do_eval": True,
        "resume_from_checkpoint": None,
        "val_size": 0.1,
        "eval_steps": 500.0,
        "preprocessing_num_workers": 16,
    }
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        (TRAIN_FLAGS, "train"),
        (PREDICT_FLAGS, "train"),
        (f"{SCORE_FLAGS} --quantization_bit 4", "train"),
        (API_FLAGS, "api"),
    ],
)
def test_command_lines(write, flags: str, command: str) -> None:
    write("")
    config = load_config(flags.split(), command, NO_PATHS)
    assert isinstance(config, RunConfig)
    if flags is TRAIN_FLAGS:
        assert (config.packing, config.fp16, config.include_num_input_tokens_seen) == (False, True, "all")
        assert (config.lora_target, config.report_to, config.lora_dropout) == (("all",), ("none",), 0.0)
    if flags is PREDICT_FLAGS:
        assert config.do_predict
        assert config.overwrite_cache
        assert config.eval_dataset == ("alpaca_gpt4_zh", "identity", "adgen_local")


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (f"{TRAIN_FLAGS} --deepspeed cache/ds_z3_config.json", "deepspeed"),
    ],
)
def test_what_comes_later_is_said(write, flags: str, key: str) -> None:
    write("")
    with pytest.raises(ConfigError) as caught:
        load_config(flags.split(), "train", NO_PATHS)
    (problem,) = caught.value.problems
    assert f"{key} is not built yet" in problem.what
    assert problem.where == f"--{key}"


def test_later_engines_and_formats_are_said(write) -> None:
    with pytest.raises(ConfigError, match="export_quantization_bit is not built yet"):
        load_config([write(GPTQ)], "export", NO_PATHS)


def test_comments_behind_backslashes_are_pointed_at() -> None:
    # What a shell makes of "--stage sft \  # which stage": a word of one blank, and the rest of the line is gone.
    with pytest.raises(ConfigError, match="no comment may follow"):
        load_config(["--stage", "sft", " "], "train")


def test_benchmark_flags_with_the_old_split(write) -> None:
    write("")
    words = [
        "--model_name_or_path",
        "m",
        "--template",
        "llama3",
        "--task",
        "mmlu_test",
        "--split",
        "validation",
        "--lang",
        "en",
        "--n_shot",
        "5",
        "--batch_size",
        "4",
    ]
    assert load_config(words, "eval").n_shot == 5
