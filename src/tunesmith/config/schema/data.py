"""Keys of data sets and of the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import CHAT, DATA, MAKE, ROWS, TOKENIZER, TRAIN, Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Data(Group):
    """Rows: where they come from and which are used."""

    TITLE: ClassVar[str] = "data"
    COMMANDS: ClassVar[tuple[str, ...]] = DATA

    dataset: tuple[str, ...] = key((), "Training data: names in dataset_info.json, or paths of files.", commands=ROWS)
    eval_dataset: tuple[str, ...] = key(
        (), "Evaluation and prediction data: names or paths. Not together with `val_size`.", commands=ROWS
    )
    dataset_dir: str = key(
        "data",
        "Folder of dataset_info.json; where it is missing the data sets that come with Tunesmith are used.",
        commands=(*ROWS, *MAKE),
        note="data make and data dialogue write their entry there where it is set, else into `output_dir`.",
    )
    val_size: float = key(
        0.0,
        "Rows held out of the training data for evaluation: a share below 1, or a number of rows.",
        ge=0,
        commands=ROWS,
    )
    max_samples: int | None = key(None, "Use at most this many rows of each data set.", ge=1, commands=ROWS)
    cutoff_len: int = key(
        2048, "Longest row in tokens; longer ones are cut, and counted in the report.", ge=1, commands=ROWS
    )
    train_on_prompt: bool = key(False, "Train on the prompts, too, not on the answers alone.")
    mask_history: bool = key(False, "Train on the last answer of each conversation only.")
    skip_bad_rows: bool = key(
        False, "Leave out rows that cannot be read, after reporting them, instead of stopping.", commands=ROWS
    )
    allow_untrained_rows: bool = key(False, "Leave out rows in which no token would be trained instead of stopping.")
    packing: bool | None = key(
        None,
        "Lay several rows into one sequence of `cutoff_len`.",
        note="Rows of a step are always laid end to end without padding and never see each other; "
        "packing only fills each one up to `cutoff_len`.",
    )
    neat_packing: bool = key(
        False, "Packing in which rows do not see each other.", note="In Tunesmith every packing is of this kind."
    )
    disable_shuffling: bool = key(False, "Keep the order of the rows.", commands=TRAIN)
    overwrite_cache: bool = key(False, "Read and tokenize again instead of using the cache.")
    preprocessing_batch_size: int = key(
        1000, "Rows that one worker takes at a time.", ge=1, note="It changes nothing in the result."
    )
    preprocessing_num_workers: int | None = key(
        None,
        "Processes that read, render and tokenize files of some size; without it one for each core, 8 at most.",
        ge=1,
        note="It changes nothing in the result.",
    )
    ignore_pad_token_for_loss: bool = key(
        True, "Leave padding out of the loss.", note="There is no padding in training and it never carries loss."
    )
    eval_on_each_dataset: bool = key(False, "Evaluate each evaluation data set on its own.", commands=TRAIN)
    data_shared_file_system: bool = key(
        False, "All machines see the same disk.", note="Only one process of a machine prepares data, whatever it says."
    )
    mix_strategy: str = key(
        "concat",
        "How several training sets become one: all rows (concat), by share until the first (interleave_under) or the "
        "last set (interleave_over) is used up, or every row once (interleave_once).",
        choices=("concat", "interleave_under", "interleave_over", "interleave_once"),
    )
    interleave_probs: tuple[float, ...] = key(
        (), "Share of each data set in the mixture, in the order of `dataset`; default: equal shares."
    )
    streaming: bool = key(
        False, "Read and tokenize rows when their step comes instead of before the first step.", commands=TRAIN
    )
    buffer_size: int = key(
        16384, "Rows that a stream is shuffled among; from the number of rows on it is a full shuffle.", ge=1
    )
    tokenized_path: str | None = key(
        None,
        "Folder of tokenized data: written when it is empty or not there, else read instead of `dataset`.",
        commands=TRAIN,
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Template(Group):
    """How a conversation becomes text."""

    TITLE: ClassVar[str] = "template"
    COMMANDS: ClassVar[tuple[str, ...]] = TOKENIZER

    template: str | None = key(
        None, "Name of the chat template, such as qwen or llama3; auto takes the tokenizer's own."
    )
    template_compat: str | None = key(
        None,
        "llamafactory renders byte for byte as LLaMA-Factory does where that differs from the model's own template.",
        choices=("llamafactory",),
    )
    force_template: bool = key(
        False, "Use the named template though the model's own chat template writes other tokens."
    )
    default_system: str | None = key(
        None, "System prompt of conversations that have none; default: the template's.", aliases=("system",)
    )
    tool_format: str | None = key(None, "How tools and calls are written, where it is not the template's way.")
    enable_thinking: bool | None = key(
        True, "Reasoning models: true thinks, false cuts thoughts out, null leaves prompts untouched."
    )
    preserve_thinking: bool = key(False, "Keep the thoughts of earlier turns.", commands=(*DATA, *CHAT))
