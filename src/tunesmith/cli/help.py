"""`COMMAND -h`: the keys that a command uses, by group."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config.schema import Key

_WIDTH = 100
_LEFT = 38
_MOST_CHOICES = 8

_EXAMPLES = {
    "train": "tunesmith train examples/train_lora/smollm2_lora_sft.yaml learning_rate=1e-4 --num_train_epochs 3",
    "chat": "tunesmith chat --model_name_or_path smollm2-135m --adapter_name_or_path saves/demo --template auto",
    "export": "tunesmith export examples/merge_lora/smollm2_lora_sft.yaml --export_dir models/merged",
    "expand": "tunesmith expand --model_name_or_path smollm2-135m --output_dir models/smollm2-pro --num_expand 6",
    "data": "tunesmith data preview examples/train_lora/smollm2_lora_sft.yaml",
    "data make": "tunesmith data make examples/data/make_endpoint.yaml --dry-run",
    "data dialogue": "tunesmith data dialogue examples/data/dialogue_palace.yaml",
    "data split": "tunesmith data split --input_file_path book/zhenhuan.txt --chunk_tokens 2048",
    "api": "tunesmith api examples/inference/smollm2.yaml",
    "infer": "tunesmith infer examples/inference/smollm2.yaml dataset=identity save_name=answers.jsonl",
    "webchat": "tunesmith webchat examples/inference/smollm2.yaml",
    "eval": "tunesmith eval --model_name_or_path smollm2-135m --template fewshot --task mmlu_test",
}
_PLACES = {"data": "data ACTION"}
_OWN_WORDS = {
    "export": "--run FOLDER    note the work in FOLDER, as other runs do; the queue has exports done this way",
    "data": """\
ACTION is one of

preview CONFIG [--row N] [--ids]    the first rows of each data set, or row N; token ids
check CONFIG [--json] [--png FILE]  every row; as one JSON object; the lengths drawn into FILE
convert INPUT OUTPUT [to=alpaca | to=sharegpt | to=openai] [--overwrite]
                                    rows in another layout, read back and compared; needs no model
make CONFIG, dialogue CONFIG, split CONFIG
                                    data sets out of long text; each lists its keys with -h""",
}


def wants_help(command: str, words: Sequence[str]) -> bool:
    """Prints the help where `-h` or `--help` is among the words, and says whether it was."""
    if not any(word in ("-h", "--help") for word in words):
        return False
    print("\n".join(_lines(command)))
    return True


def _lines(command: str) -> Iterator[str]:
    yield f"usage: tunesmith {_PLACES.get(command, command)} [CONFIG.yaml] [key=value | --key value]..."
    if command in _OWN_WORDS:
        yield "\n" + textwrap.indent(_OWN_WORDS[command], "  ")
    yield f"\nexample:\n  {_EXAMPLES[command]}\n"
    yield from textwrap.wrap(
        "Every key may stand in the file, as key=value, or as --key value; what stands later wins. Switches may stand "
        "bare (--do_train), --no_ in front turns them off, lists take several words or commas. "
        "tunesmith explain KEY tells more about a key.",
        _WIDTH,
    )
    from tunesmith.config.schema import KEYS

    groups: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for name, known in KEYS.items():
        if command in known.commands:
            (missing if known.not_yet else groups).setdefault(known.group, []).append(name)
    for group, names in groups.items():
        yield f"\n{group}"
        for name in names:
            yield from _entry(KEYS[name])
    yield from _not_yet(missing)


def _entry(known: Key) -> Iterator[str]:
    details = _details(known)
    text = f"{known.help} [{'; '.join(details)}]" if details else known.help
    head = f"  --{known.name}"
    lines = textwrap.wrap(text, _WIDTH - _LEFT, break_on_hyphens=False)
    if len(head) < _LEFT - 1:
        yield f"{head:<{_LEFT}}{lines.pop(0)}"
    else:
        yield head
    yield from (" " * _LEFT + line for line in lines)


def _details(known: Key) -> list[str]:
    """Choices or range, default, and choices that are not built yet; a switch that is off needs no words."""
    from tunesmith.config.explain import range_words, shown

    details = []
    if known.choices and len(known.choices) < _MOST_CHOICES:
        details.append(" | ".join(known.choices))
    elif range_words(known):
        details.append(range_words(known))
    if known.default not in (None, (), "") and known.default is not False:
        details.append(f"default {shown(known.default)}")
    if known.not_yet_values and len(known.choices) < _MOST_CHOICES:
        details.append(f"not yet: {', '.join(known.not_yet_values)}")
    return details


def _not_yet(missing: dict[str, list[str]]) -> Iterator[str]:
    if not missing:
        return
    yield "\nknown, but not built yet (refused, never ignored)"
    for group, names in missing.items():
        indent = "  "
        yield from textwrap.wrap(
            f"{group}: {', '.join(names)}",
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent * 2,
            break_on_hyphens=False,
        )
