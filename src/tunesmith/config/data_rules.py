"""What must hold between the keys of data: mixing, streaming, tokenized data. Opens no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import RunConfig


def shares_fit(config: RunConfig) -> Iterator[Fault]:
    """`interleave_probs` has one share above 0 for each data set, and they make a whole."""
    shares = config.interleave_probs
    if not shares:
        return
    keys = ("interleave_probs", "mix_strategy")
    if config.mix_strategy == "concat":
        yield Fault(keys, "interleave_probs does nothing with mix_strategy concat", "set mix_strategy: interleave_over")
    if len(shares) != len(config.dataset):
        what = f"interleave_probs has {len(shares)} shares, dataset {len(config.dataset)} names"
        yield Fault(("interleave_probs", "dataset"), what, "give one share for each data set")
    if any(share <= 0 for share in shares):
        yield Fault(("interleave_probs",), "a share of 0 or less", "take that data set out of dataset")
    elif abs(sum(shares) - 1) > 0.01:
        fix = "such as " + ", ".join(f"{share / sum(shares):.4g}" for share in shares)
        yield Fault(("interleave_probs",), f"the shares add up to {sum(shares):g}, not to 1", fix)


def stream_fits(config: RunConfig) -> Iterator[Fault]:
    """A stream knows the number of rows before the first step, not their lengths."""
    if not config.streaming:
        return
    for name in ("packing", "neat_packing"):
        if getattr(config, name):
            fix = f"leave {name} out: what a step reads is laid end to end without padding anyway"
            yield Fault(("streaming", name), f"{name} needs the lengths of all rows, which a stream does not know", fix)
    if config.tokenized_path:
        what = "streaming and tokenized_path exclude each other: a stream keeps nothing"
        yield Fault(("streaming", "tokenized_path"), what, "keep one")
    if config.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        what = f"train_sampling_strategy {config.train_sampling_strategy} needs lengths, which a stream does not know"
        yield Fault(("streaming", "train_sampling_strategy"), what, "leave one of them out")


def prediction_has_rows(config: RunConfig) -> Iterator[Fault]:
    """Tokenized data has no prompts to answer."""
    if config.do_predict and config.tokenized_path and not (config.dataset or config.eval_dataset):
        what = "do_predict answers prompts, and tokenized_path holds tokens only"
        yield Fault(("do_predict", "tokenized_path"), what, "name an eval_dataset")


RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (("train", "data"), shares_fit),
    (("train",), stream_fits),
    (("train",), prediction_has_rows),
)
"""The commands that a rule is for, and the rule."""
