"""What must hold between the keys of reinforcement learning: PPO and GRPO."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import RunConfig

_STAGES = ("ppo", "grpo")


def answers_are_rewarded(config: RunConfig) -> Iterator[Fault]:
    """Reinforcement needs a reward; other stages have none."""
    named = [name for name in ("reward_model", "reward_funcs") if getattr(config, name)]
    if config.stage in _STAGES and config.do_train and not named:
        fix = "name a reward_model, or reward_funcs such as json_valid or my.py:score"
        yield Fault(("reward_model", "reward_funcs", "stage"), f"stage {config.stage} needs a reward", fix)
    if config.stage not in _STAGES:
        for name in named:
            yield Fault((name, "stage"), f"{name} is for stages ppo and grpo, not {config.stage}")


def weights_fit(config: RunConfig) -> Iterator[Fault]:
    """One factor for each reward."""
    count = len(config.reward_funcs) + (config.reward_model is not None)
    if config.reward_weights and len(config.reward_weights) != count:
        what = f"reward_weights has {len(config.reward_weights)} numbers for {count} rewards"
        yield Fault(("reward_weights",), what, "give one for each of reward_funcs, then one for reward_model")


def reward_model_fits(config: RunConfig) -> Iterator[Fault]:
    """A reward adapter shares the base with the adapter that is trained; a server has an address."""
    if config.stage not in _STAGES or not config.reward_model:
        return
    keys = ("reward_model", "reward_model_type")
    if config.reward_model_type == "lora" and config.finetuning_type != "lora":
        what = f"a reward model of type lora shares its base with a LoRA run, not with {config.finetuning_type}"
        yield Fault((*keys, "finetuning_type"), what, "merge it with tunesmith export and set reward_model_type: full")
    if config.reward_model_type == "api" and not config.reward_model.startswith(("http://", "https://")):
        yield Fault(keys, f"reward_model {config.reward_model} is no address", "http://HOST:PORT/v1/score/evaluation")
    if config.reward_model_adapters and config.reward_model_type != "full":
        what = "reward_model_adapters are put on a reward model of type full"
        yield Fault(("reward_model_adapters", "reward_model_type"), what, "name the adapter as reward_model itself")


def answers_can_be_sampled(config: RunConfig) -> Iterator[Fault]:
    """Answers that are all the same teach nothing; a beam search or a penalty is not the policy that is trained."""
    if config.stage not in _STAGES:
        return
    if not config.do_sample or ("temperature" in config.explicit and config.temperature == 0):
        key = "do_sample" if not config.do_sample else "temperature"
        yield Fault((key, "stage"), f"stage {config.stage} learns from answers that differ: they must be drawn")
    for name, plain in (("num_beams", 1), ("repetition_penalty", 1.0)):
        if getattr(config, name) != plain:
            what = (
                f"{name} {getattr(config, name)} makes answers that the policy itself would not: ratios would be wrong"
            )
            yield Fault((name, "stage"), what, "leave it out")
    if config.max_new_tokens == 0:
        yield Fault(("max_new_tokens", "stage"), f"stage {config.stage} needs a longest answer", "max_new_tokens: 256")


def only_training_rows(config: RunConfig) -> Iterator[Fault]:
    """Prompts are answered anew in each step: nothing of a file's answers can be packed, streamed or evaluated."""
    if config.stage not in _STAGES:
        return
    wrong = {
        "packing": config.packing,
        "streaming": config.streaming,
        "tokenized_path": config.tokenized_path,
        "eval_dataset": config.eval_dataset,
        "val_size": config.val_size,
        "load_best_model_at_end": config.load_best_model_at_end,
        "predict_with_generate": config.predict_with_generate,
    }
    for name in (name for name, value in wrong.items() if value):
        fix = "train without it, and score answers afterwards with stage: sft and do_predict"
        yield Fault((name, "stage"), f"{name} has no meaning in stage {config.stage}", fix)


RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (("train",), answers_are_rewarded),
    (("train",), weights_fit),
    (("train",), reward_model_fits),
    (("train",), answers_can_be_sampled),
    (("train",), only_training_rows),
)
"""The commands that a rule is for, and the rule."""
