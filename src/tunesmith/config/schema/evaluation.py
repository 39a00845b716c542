"""Keys of answering (`generating`), of scoring answers, and of the `eval` command."""

# ruff: noqa: RUF009 - `key` is a field specifier, which ruff knows only by the name of dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.config.schema.key import BATCH, CHAT, EVAL, TRAIN, Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Generating(Group):
    """How answers are made."""

    TITLE: ClassVar[str] = "answers"
    COMMANDS: ClassVar[tuple[str, ...]] = ("train", *CHAT)

    do_sample: bool = key(True, "Draw tokens at random; false always takes the likeliest.")
    temperature: float = key(
        0.95, "Below 1 likelier tokens gain, above 1 they lose; 0 always takes the likeliest.", ge=0
    )
    top_p: float = key(0.7, "Draw among the likeliest tokens that hold this share of the probability.", gt=0, le=1)
    top_k: int = key(50, "Draw among this many likeliest tokens; 0 or -1: all.", ge=-1)
    num_beams: int = key(1, "Number of beams of a beam search.", ge=1)
    max_length: int = key(1024, "Longest prompt plus answer, in tokens; used only where `max_new_tokens` is 0.", ge=1)
    max_new_tokens: int = key(1024, "Longest answer, in tokens.", ge=0)
    repetition_penalty: float = key(1.0, "Above 1 tokens that were used before become less likely.", gt=0)
    length_penalty: float = key(1.0, "Above 0 a beam search prefers longer answers.")
    skip_special_tokens: bool = key(True, "Leave special tokens out of the text that is shown.")
    stop: tuple[str, ...] = key((), "Texts that end an answer, beside the template's end tokens.", whole=True)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Inferring(Group):
    """Answers to a data set."""

    TITLE: ClassVar[str] = "answers to a data set"
    COMMANDS: ClassVar[tuple[str, ...]] = BATCH

    save_name: str = key(
        "generated_predictions.jsonl", "File that `infer` writes: prompt, predict and label of every row."
    )
    matrix_save_name: str | None = key(
        None, "File for BLEU and ROUGE of these answers and for how long they took; default: no scores."
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Metrics(Group):
    """How generated answers are scored."""

    TITLE: ClassVar[str] = "metrics of answers"
    COMMANDS: ClassVar[tuple[str, ...]] = ("train", "infer")

    metrics: tuple[str, ...] = key(
        (),
        "Scores of predicted answers: bleu, corpus_bleu, rouge, chrf, exact_match, contains, token_f1, number_match, "
        "regex_match, json_valid, json_equal, accuracy, precision, recall, f1, span_precision, span_recall, span_f1, "
        "or my.py:function; default: bleu-4, rouge-1, rouge-2, rouge-l as LLaMA-Factory computes them.",
    )
    eval_metrics: tuple[str, ...] = key(
        (),
        "Scores of answers in evaluation while training; default: `metrics` where `predict_with_generate` asks for "
        "answers, else none.",
        commands=TRAIN,
    )
    metric_options: dict[str, Any] | None = key(
        None,
        "How labels and spans are read out of answers, and other settings of metrics; docs/evaluation.md lists them.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Evaluation(Group):
    """Benchmarks."""

    TITLE: ClassVar[str] = "benchmarks"
    COMMANDS: ClassVar[tuple[str, ...]] = EVAL

    task: str | None = key(
        None,
        "What is asked: mmlu_test, mmlu_validation, ceval_validation, ceval_test, cmmlu_test; the path of a task's "
        "YAML file; or lm_eval:NAME for a task of lm-evaluation-harness.",
    )
    split: str | None = key(
        None, "Split of the benchmark, where `task` does not name it.", choices=("train", "validation", "test")
    )
    task_dir: str = key("evaluation", "Folder of the benchmarks; those that are not in it come from the hub.")
    batch_size: int = key(
        4,
        "Questions or rows at a time.",
        ge=1,
        note="Where it is not set `infer` takes 16. It changes how fast answers come, not the answers.",
        commands=(*EVAL, *BATCH),
    )
    lang: str = key("en", "Language of the prompts.", choices=("en", "zh"))
    n_shot: int = key(5, "Worked examples before each question, drawn once a subject.", ge=0)
    save_dir: str | None = key(
        None,
        "Folder for the results; results of another evaluation in it are never written over.",
        note="The same command goes on where a killed one stopped.",
    )
    download_mode: str = key(
        "reuse_dataset_if_exists",
        "Whether benchmarks are downloaded again.",
        choices=("reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"),
    )
    forgetting: bool = key(
        False,
        "Instead of a `task`: a fixed set of questions before and after tuning, and whether the model forgot.",
        note="Before is `ref_model`, or the base without `adapter_name_or_path`.",
    )
