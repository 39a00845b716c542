"""RunConfig: every key of a run, typed and frozen. How it comes about is in load.py and build.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.config.schema.data import Data, Template
from tunesmith.config.schema.evaluation import Evaluation, Generating, Inferring, Metrics
from tunesmith.config.schema.export import Export
from tunesmith.config.schema.finetuning import Freeze, Lora, Method, Oft
from tunesmith.config.schema.inference import Engine, Media, Quantization, Sglang, Vllm
from tunesmith.config.schema.key import Group, Key, keys_of
from tunesmith.config.schema.making import Generator, LongText, Making
from tunesmith.config.schema.megatron import HyperParallel, Megatron, Ray
from tunesmith.config.schema.model import KTransformers, Memory, Model, Tokenizer
from tunesmith.config.schema.optimizers import Apollo, Badam, Galore, OtherOptimizers, Swanlab
from tunesmith.config.schema.preference import Preference
from tunesmith.config.schema.reinforcement import GroupRelative, Proximal, Rewards
from tunesmith.config.schema.reporting import Evaluating, Hub, Logging, Profiler, Saving
from tunesmith.config.schema.training import Loader, Loop, Optimizer, Precision, Processes


@dataclass(frozen=True)
class RunConfig(
    Model,
    Tokenizer,
    Memory,
    Data,
    Template,
    Method,
    Lora,
    Freeze,
    Loop,
    Optimizer,
    Precision,
    Loader,
    Processes,
    Logging,
    Evaluating,
    Saving,
    Generating,
    Metrics,
    Inferring,
    Engine,
    LongText,
    Making,
    Generator,
    Export,
    Evaluation,
    Quantization,
    Media,
    Vllm,
    Sglang,
    Preference,
    Rewards,
    Proximal,
    GroupRelative,
    Oft,
    Galore,
    Apollo,
    Badam,
    OtherOptimizers,
    Swanlab,
    Hub,
    Profiler,
    Ray,
    HyperParallel,
    Megatron,
    KTransformers,
):
    """One run, resolved: attributes are the YAML keys.

    Attributes:
        command: the command it was made for.
        explicit: keys that the user set.
        sources: key -> `file:line` or `--flag`, for the keys that the user set.
        origin: the file, or `command line`; where a missing key is reported.
        unused: keys that the user set and that `command` does not use.
    """

    command: str = "train"
    explicit: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    origin: str = field(default="", compare=False, repr=False)
    unused: tuple[str, ...] = ()

    def asks_for(self, name: str) -> bool:
        """Whether a key was set to something else than its default: what a rule may object to.

        A configuration that a run wrote spells its defaults out and has to load again.
        """
        return name in self.explicit and getattr(self, name) != KEYS[name].default

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], command: str = "train", *, rules: bool = False) -> RunConfig:
        """Makes a configuration from Python values: types, choices, ranges and unbuilt features are checked.

        Args:
            mapping: YAML keys to values; lists may be text with commas, numbers may be text.
            command: the command it is for.
            rules: check the rules between keys and the file system, too, as the command line does.

        Raises:
            ConfigError: with every problem found.
        """
        from tunesmith.config.build import from_mapping

        return from_mapping(mapping, command, with_rules=rules)

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some keys changed, checked like `from_dict`; the changed keys count as set by the user."""
        from tunesmith.config.build import changed

        return changed(self, changes)

    def place(self, name: str) -> str:
        """Where `name` was set; where nobody did, the origin."""
        return self.sources.get(name, self.origin)

    def to_dict(self) -> dict[str, Any]:
        """All keys as plain values (lists for tuples), secrets left out."""
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value
            for name, known in KEYS.items()
            if not known.secret
        }

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that loads again to the same run; secrets are left out by name."""
        from tunesmith.config.dump import to_yaml

        return to_yaml(self)

    def training_arguments(self) -> dict[str, Any]:
        """The keys that transformers' TrainingArguments has under the same name, with the values of this run.

        Keys that are not built yet are left out: they stand at transformers' default.
        """
        plain = self.to_dict()
        return {name: plain[name] for name, known in KEYS.items() if known.native and not known.not_yet}


def _groups() -> tuple[type[Group], ...]:
    return tuple(base for base in RunConfig.__bases__ if issubclass(base, Group))


GROUPS: tuple[type[Group], ...] = _groups()
"""All groups, in the order of the help."""

KEYS: dict[str, Key] = {name: known for group in GROUPS for name, known in keys_of(group).items()}
"""Every key of the configuration, by name, in the order of the help."""

ALIASES: dict[str, str] = {alias: name for name, known in KEYS.items() for alias in known.aliases}
"""Other names that are accepted silently -> key."""
