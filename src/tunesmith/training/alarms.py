"""Signs in the metrics that a run goes wrong, said by name in the log while there is time to stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run

Means = Mapping[str, float]
"""Metric -> its moving mean over log entries; `first:` + metric -> its first value; `entries`: how many there were."""
FEWEST_ENTRIES = 3
ENTRIES_OF_LENGTH = 10
"""Log entries before length is judged: a batch has few pairs of either kind."""
_KEEP = 0.8
"""Share of the old mean in the new one."""
COLLAPSE_SHARE, COLLAPSE_NATS = 0.25, 10.0
COLLAPSE_TOKEN_NATS = 0.5
KL_NATS, KL_TOKEN_NATS = 50.0, 2.0
LENGTH_BIAS = 0.6
logger = get_logger(__name__)


def chosen_collapse(means: Means, beta: float) -> str | None:
    """The chosen answers became far less likely than the reference finds them.

    DPO raises the margin between two answers; where both fall, the model moves to a third that nobody chose.

    Args:
        means: of `rewards/chosen` and `logps/chosen`.
        beta: `pref_beta`.
    """
    if "rewards/chosen" not in means or "logps/chosen" not in means:
        return None
    change = means["rewards/chosen"] / beta
    before = means["logps/chosen"] - change
    if change > -COLLAPSE_NATS or change > COLLAPSE_SHARE * before:
        return None
    return (
        f"chosen answers are {-change:.0f} nats less likely than under the reference ({before:.0f}): both answers of "
        "a pair fall; lower learning_rate, raise pref_beta, or set pref_ftx: 0.1"
    )


def mean_collapse(means: Means, beta: float) -> str | None:
    """The same where there is no reference: `logps/chosen` are means over tokens, held against the first ones."""
    first, now = means.get("first:logps/chosen"), means.get("logps/chosen")
    if first is None or now is None or first - now < max(COLLAPSE_TOKEN_NATS, -COLLAPSE_SHARE * first):
        return None
    return f"chosen answers fell from {first:.2f} to {now:.2f} nats a token; lower learning_rate or raise pref_ftx"


def kl_blow_up(means: Means, limit: float) -> str | None:
    """The policy left the reference.

    Args:
        means: of `kl`.
        limit: nats that are too far.
    """
    kl = means.get("kl")
    if kl is None or kl < limit:
        return None
    return f"the KL to the reference is {kl:.1f} nats (alarm from {limit:g} on); lower learning_rate or raise pref_beta"


def length_drift(means: Means) -> str | None:
    """The longer answer of a pair wins, whichever is the chosen one.

    Args:
        means: of `rewards/length_bias`: share of right pairs among those whose chosen answer is the longer one, minus
            the same share among the others.
    """
    bias = means.get("rewards/length_bias")
    if bias is None or means["entries"] < ENTRIES_OF_LENGTH or abs(bias) < LENGTH_BIAS:
        return None
    which, other = ("longer", "shorter") if bias > 0 else ("shorter", "longer")
    return (
        f"pairs come out right {abs(bias):.0%} more often where the chosen answer is the {which} one than where it is "
        f"the {other} one: length is learned instead of quality; set ld_alpha: 0.5, or balance the lengths of the pairs"
    )


def checks_of(stage: str, pref_loss: str, beta: float) -> dict[str, Callable[[Means], str | None]]:
    """Name of an alarm -> what looks for it, for a stage and its loss."""
    if stage == "dpo":
        has_reference = pref_loss not in ("orpo", "simpo")
        collapse = chosen_collapse if has_reference and pref_loss != "ipo" else mean_collapse
        return {
            "chosen log-prob collapse": lambda means: collapse(means, beta),
            "length drift": length_drift,
        }
    if stage == "kto":
        return {
            "chosen log-prob collapse": lambda means: chosen_collapse(means, beta),
            "KL blow-up": lambda means: kl_blow_up(means, KL_NATS),
        }
    limit = {"sft": KL_TOKEN_NATS, "grpo": KL_TOKEN_NATS, "ppo": KL_NATS}.get(stage)
    return {"KL blow-up": lambda means: kl_blow_up(means, limit)} if limit else {}


class Alarms(TrainerCallback):
    """Watches the log entries; each alarm is raised once, in the log and as an event of the run.

    Args:
        run: the run directory.
        checks: see `checks_of`.
    """

    def __init__(self, run: Run, checks: Mapping[str, Callable[[Means], str | None]]) -> None:
        self._run, self._checks = run, checks
        self._means: dict[str, float] = {}
        self._raised: set[str] = set()
        self._entries = 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self._entries += 1
        for name, value in logs.items():
            if isinstance(value, int | float):
                self._means[name] = _KEEP * self._means.get(name, value) + (1 - _KEEP) * value
                self._means.setdefault(f"first:{name}", value)
        self._means["entries"] = self._entries
        if self._entries < FEWEST_ENTRIES:
            return
        for name, check in self._checks.items():
            said = None if name in self._raised else check(self._means)
            if said:
                self._raised.add(name)
                logger.warning("alarm: %s at step %d: %s", name, state.global_step, said)
                self._run.emit("alarm", name=name, step=state.global_step, reason=said)
