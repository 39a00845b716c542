"""What must hold between keys. One small function a rule; more in the `*_rules.py` beside it and in paths.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config import (
    data_rules,
    engine_rules,
    making_rules,
    method_rules,
    metrics,
    optimizer_rules,
    paths,
    quantization_rules,
    reinforcement_rules,
    stage_rules,
    tasks,
)
from tunesmith.config.fault import Fault
from tunesmith.config.schema import COMMANDS, KEYS, RunConfig
from tunesmith.config.schema.key import MAKING, ROWS

Rule = Callable[[RunConfig], Iterator[Fault]]


def faults(config: RunConfig, *, with_paths: bool = True) -> Iterator[Fault]:
    """Everything that does not go together for the command of this configuration."""
    more = (
        data_rules,
        engine_rules,
        stage_rules,
        method_rules,
        optimizer_rules,
        quantization_rules,
        metrics,
        reinforcement_rules,
        making_rules,
    )
    on_disk = (paths,) if with_paths else ()
    for commands, rule in (*RULES, *(pair for module in (*more, *on_disk) for pair in module.RULES)):
        if config.command in commands:
            yield from rule(config)


def model_is_named(config: RunConfig) -> Iterator[Fault]:
    """Every command that trains, answers or renders needs a model, if only for its tokenizer."""
    if not config.model_name_or_path:
        yield Fault(
            ("model_name_or_path",),
            "model_name_or_path is missing",
            "name a folder, a model of the hub, or smollm2-135m",
        )


def something_is_done(config: RunConfig) -> Iterator[Fault]:
    """`train` does what do_train, do_eval and do_predict ask for; evaluation while training does not count."""
    evaluates = config.do_eval and "do_eval" in config.explicit
    if not (config.do_train or config.do_predict or evaluates):
        keys = ("do_train", "do_predict", "do_eval")
        yield Fault(keys, "nothing is to be done", "set do_train: true to train (or do_eval, do_predict)")


def output_is_named(config: RunConfig) -> Iterator[Fault]:
    """Training, evaluation and prediction all write."""
    if not config.output_dir:
        yield Fault(("output_dir",), "output_dir is missing", "name the folder for weights, logs and results")


def training_changes_weights(config: RunConfig) -> Iterator[Fault]:
    """A run that makes no step, or steps of no length, would end well and have learnt nothing."""
    if config.do_train and config.max_steps == 0:
        yield Fault(
            ("max_steps",), "max_steps 0 makes no step", "leave it out, or write -1: num_train_epochs rules then"
        )
    if config.do_train and config.learning_rate == 0:
        yield Fault(("learning_rate",), "learning_rate 0 changes no weight", "leave it out, or write one such as 1e-4")


def training_has_data(config: RunConfig) -> Iterator[Fault]:
    """Training needs rows."""
    if config.do_train and not config.dataset and not config.tokenized_path:
        yield Fault(("dataset", "do_train"), "do_train needs a dataset", "set dataset: NAME or a path")


def data_is_named(config: RunConfig) -> Iterator[Fault]:
    """`data` and `infer` need rows."""
    if not config.dataset and not config.eval_dataset:
        yield Fault(("dataset", "eval_dataset"), "dataset is missing", "set dataset: NAME or a path")


def evaluation_has_data(config: RunConfig) -> Iterator[Fault]:
    """Evaluation and prediction need rows of their own."""
    askers = [name for name in ("do_predict", "predict_with_generate", "do_eval") if getattr(config, name)]
    if config.eval_strategy != "no":
        askers.append("eval_strategy")
    if askers and not config.eval_dataset and config.val_size == 0 and not config.tokenized_path:
        asker = next((name for name in askers if name in config.explicit), askers[0])
        fix = "set eval_dataset: NAME, or val_size to hold rows out of the training data"
        yield Fault((asker, "eval_dataset", "val_size"), f"{asker} needs evaluation data", fix)


def held_out_rows(config: RunConfig) -> Iterator[Fault]:
    """`val_size` is a share or a number of rows of `dataset`, and the only source of evaluation rows."""
    size = config.val_size
    if size > 1 and not float(size).is_integer():
        what = f"val_size {size:g} is neither a share below 1 nor a whole number of rows"
        yield Fault(("val_size",), what)
    if size > 0 and not config.dataset and not config.tokenized_path:
        yield Fault(("val_size", "dataset"), "val_size takes rows out of dataset, which is missing")
    if size > 0 and config.eval_dataset:
        yield Fault(("val_size", "eval_dataset"), "val_size and eval_dataset exclude each other", "keep one")


def one_kind_of_mask(config: RunConfig) -> Iterator[Fault]:
    """Loss on the last answer only, or on prompts as well; not both."""
    if config.mask_history and config.train_on_prompt:
        keys = ("mask_history", "train_on_prompt")
        what = "mask_history trains on the last answer only, train_on_prompt on everything: they exclude each other"
        yield Fault(keys, what, "keep one")


def accuracy_or_answers(config: RunConfig) -> Iterator[Fault]:
    """Evaluation computes token accuracy or scores answers; not both."""
    if config.predict_with_generate and config.compute_accuracy:
        keys = ("compute_accuracy", "predict_with_generate")
        yield Fault(keys, "compute_accuracy and predict_with_generate exclude each other", "keep one")


def lora_only(config: RunConfig) -> Iterator[Fault]:
    """Kinds of LoRA need finetuning_type lora."""
    if config.finetuning_type == "lora":
        return
    for name in ("use_rslora", "use_dora", "pissa_init", "loftq_init", "loraplus_lr_ratio", "create_new_adapter"):
        if getattr(config, name) and not (name == "create_new_adapter" and config.finetuning_type == "oft"):
            yield Fault((name, "finetuning_type"), f"{name} is for finetuning_type lora, not {config.finetuning_type}")


def adapters_are_lora(config: RunConfig) -> Iterator[Fault]:
    """Full and freeze tuning write whole weights and have no adapter."""
    if config.adapter_name_or_path and config.finetuning_type not in ("lora", "oft"):
        what = f"adapter_name_or_path cannot be used with finetuning_type {config.finetuning_type}"
        fix = "set finetuning_type: lora, or export the merged model first and train that"
        yield Fault(("adapter_name_or_path", "finetuning_type"), what, fix)


def descriptions_are_there(config: RunConfig) -> Iterator[Fault]:
    """New tokens can start from descriptions only where there are any."""
    if config.init_special_tokens != "noise_init" and not config.new_special_tokens_config:
        keys = ("init_special_tokens", "new_special_tokens_config")
        what = f"init_special_tokens: {config.init_special_tokens} needs new_special_tokens_config with descriptions"
        yield Fault(keys, what, "name that file, or set init_special_tokens: noise_init")


def freeze_leaves_something(config: RunConfig) -> Iterator[Fault]:
    """Freezing everything would train on nothing."""
    if config.finetuning_type != "freeze" or config.freeze_extra_modules:
        return
    if config.freeze_trainable_layers == 0 or not config.freeze_trainable_modules:
        name = "freeze_trainable_layers" if config.freeze_trainable_layers == 0 else "freeze_trainable_modules"
        yield Fault((name, "finetuning_type"), f"with this {name} no weight would be trained")


def lora_has_targets(config: RunConfig) -> Iterator[Fault]:
    """LoRA without modules would train nothing."""
    if config.finetuning_type == "lora" and not config.lora_target:
        yield Fault(("lora_target",), "lora_target is empty: nothing would be trained", "set lora_target: all")


def one_number_format(config: RunConfig) -> Iterator[Fault]:
    """bf16, pure_bf16, fp16 and dtype must name one format."""
    asked = {"bf16": "bfloat16", "pure_bf16": "bfloat16", "fp16": "float16"}
    on = [name for name in asked if getattr(config, name)]
    if len({asked[name] for name in on}) > 1:
        yield Fault(tuple(on), f"{' and '.join(on)} exclude each other", "keep one")
    elif on and config.dtype not in ("auto", asked[on[0]]):
        yield Fault(("dtype", on[0]), f"dtype {config.dtype} and {on[0]} exclude each other", "keep one")


def steps_are_whole(config: RunConfig) -> Iterator[Fault]:
    """Intervals are shares below 1 or whole steps."""
    for name in ("logging_steps", "eval_steps", "save_steps", "warmup_steps"):
        value = getattr(config, name)
        if value is not None and value > 1 and not float(value).is_integer():
            what = f"{name} {value:g} is neither a share below 1 nor a whole number of steps"
            yield Fault((name,), what)


def best_model_is_known(config: RunConfig) -> Iterator[Fault]:
    """The best checkpoint can be found only if each one was evaluated."""
    if not config.load_best_model_at_end or not config.do_train:
        return
    if config.eval_strategy == "no":
        yield Fault(
            ("load_best_model_at_end", "eval_strategy"),
            "load_best_model_at_end needs evaluation while training",
            "set eval_strategy: steps or epoch",
        )
    elif config.save_strategy not in (config.eval_strategy, "best"):
        what = (
            f"load_best_model_at_end needs a checkpoint of each evaluation, but eval_strategy is "
            f"{config.eval_strategy} and save_strategy {config.save_strategy}"
        )
        yield Fault(("load_best_model_at_end", "save_strategy"), what, f"set save_strategy: {config.eval_strategy}")
    elif config.eval_strategy == config.save_strategy == "steps":
        yield from _saves_fall_on_evaluations(config)


def _saves_fall_on_evaluations(config: RunConfig) -> Iterator[Fault]:
    every = config.eval_steps or config.logging_steps
    saves = config.save_steps
    if (every < 1) != (saves < 1):
        what = "load_best_model_at_end needs save_steps and eval_steps both as shares or both as steps"
    elif abs(saves / every - round(saves / every)) > 1e-6:
        what = f"load_best_model_at_end needs save_steps ({saves:g}) to be a multiple of eval_steps ({every:g})"
    else:
        return
    yield Fault(("save_steps", "eval_steps", "load_best_model_at_end"), what)


def watchers_see_evaluations(config: RunConfig) -> Iterator[Fault]:
    """What waits for evaluations needs some while training."""
    if not config.do_train or config.eval_strategy != "no":
        return
    askers = {
        "early_stopping_steps": config.early_stopping_steps is not None,
        "save_strategy": config.save_strategy == "best",
        "lr_scheduler_type": config.lr_scheduler_type == "reduce_lr_on_plateau",
    }
    for name in (name for name, asks in askers.items() if asks):
        what = f"{name}: {getattr(config, name)} needs evaluation while training"
        yield Fault((name, "eval_strategy"), what, "set eval_strategy: steps or epoch")


def workers_have_work(config: RunConfig) -> Iterator[Fault]:
    """Settings of loader processes need such processes."""
    if config.dataloader_num_workers:
        return
    for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        if getattr(config, name):
            yield Fault((name, "dataloader_num_workers"), f"{name} needs dataloader_num_workers above 0")


def gradient_checkpointing_is_decided(config: RunConfig) -> Iterator[Fault]:
    """Asked for and forbidden at once is a mistake."""
    if config.gradient_checkpointing and config.disable_gradient_checkpointing:
        keys = ("gradient_checkpointing", "disable_gradient_checkpointing")
        yield Fault(keys, "gradient_checkpointing is both asked for and forbidden", "keep one")


def trackers_agree(config: RunConfig) -> Iterator[Fault]:
    """`none` and `all` stand alone."""
    alone = [name for name in ("none", "all") if name in config.report_to]
    if alone and len(config.report_to) > 1:
        yield Fault(("report_to",), f"report_to: {alone[0]} stands alone, but there are others beside it")


def export_is_named(config: RunConfig) -> Iterator[Fault]:
    """Export needs a folder to write to."""
    if not config.export_dir:
        yield Fault(("export_dir",), "export_dir is missing", "name the folder for the merged model")


_TRAIN = ("train",)
RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (tuple(command for command in COMMANDS if command not in MAKING), model_is_named),
    (_TRAIN, something_is_done),
    (_TRAIN, output_is_named),
    (_TRAIN, training_changes_weights),
    (_TRAIN, training_has_data),
    (("data", "infer"), data_is_named),
    (_TRAIN, evaluation_has_data),
    (ROWS, held_out_rows),
    (("train", "data"), one_kind_of_mask),
    (_TRAIN, accuracy_or_answers),
    (_TRAIN, lora_only),
    (KEYS["adapter_name_or_path"].commands, adapters_are_lora),
    (KEYS["init_special_tokens"].commands, descriptions_are_there),
    (_TRAIN, freeze_leaves_something),
    (_TRAIN, lora_has_targets),
    (_TRAIN, one_number_format),
    (_TRAIN, steps_are_whole),
    (_TRAIN, best_model_is_known),
    (_TRAIN, watchers_see_evaluations),
    (_TRAIN, workers_have_work),
    (_TRAIN, gradient_checkpointing_is_decided),
    (_TRAIN, trackers_agree),
    (("export",), export_is_named),
    (("eval",), tasks.task_is_named),
)
"""The commands that a rule is for, and the rule."""
