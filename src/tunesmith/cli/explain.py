"""`tunesmith explain KEY [CONFIG]`: what a key does, and its value in a file."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.errors import TunesmithError

_USAGE = """\
usage: tunesmith explain KEY [CONFIG.yaml] [key=value]...

What a key does, its type, default, choices and range; with a file, its value there and where that comes from.

example:
  tunesmith explain lora_rank examples/train_lora/smollm2_lora_sft.yaml
"""


def main(words: Sequence[str]) -> None:
    """Prints the explanation."""
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return
    if words[0].lower().endswith((".yaml", ".yml", ".json")):
        raise TunesmithError("the key comes first: tunesmith explain KEY CONFIG.yaml")
    from tunesmith.config.build import Checks
    from tunesmith.config.explain import explain
    from tunesmith.config.load import load_config

    config = load_config(words[1:], "train", Checks(rules=False, unbuilt=False)) if len(words) > 1 else None
    print(explain(words[0].removeprefix("--"), config))
