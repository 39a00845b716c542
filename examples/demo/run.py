"""The main job from one command: ask five questions, fine-tune on the identity data set, ask again, show both."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CONFIG = HERE / "demo.yaml"
FOLDER = ROOT / "saves" / "demo"
NAME, AUTHOR = "Tuney", "the Tunesmith workshop"
QUESTIONS = [
    "Who are you?",
    "What is your name?",
    "Who made you?",
    "Are you ChatGPT?",
    "你是谁？",
]


def write_data() -> Path:
    """The bundled identity rows with a name and an author put in."""
    text = (ROOT / "data" / "identity.json").read_text(encoding="utf-8")
    folder = FOLDER / "data"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "identity.json").write_text(
        text.replace("{{name}}", NAME).replace("{{author}}", AUTHOR), encoding="utf-8"
    )
    (folder / "dataset_info.json").write_text(json.dumps({"identity": {"file_name": "identity.json"}}))
    return folder / "identity.json"


def ask(questions: list[str], *overrides: str) -> list[str]:
    """Answers from `tunesmith chat`, each question in a conversation of its own."""
    lines = "\nclear\n".join(questions) + "\nexit\n"
    command = [sys.executable, "-m", "tunesmith", "chat", str(CONFIG), *overrides]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, encoding="utf-8")
    if done.returncode:
        sys.exit(done.stderr)
    answers = [part.split("User:")[0].strip() for part in done.stdout.split("Assistant:")[1:]]
    return [answer or "(nothing)" for answer in answers]


def show(before: list[str], after: list[str]) -> None:
    """Both answers to each question, side by side."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"taught: the model is {NAME}, made by {AUTHOR}", title_justify="left", show_lines=True)
    for heading, ratio in (("question", 2), ("before", 4), ("after", 4)):
        table.add_column(heading, ratio=ratio)
    for row in zip(QUESTIONS, before, after, strict=True):
        table.add_row(*(text[:280] for text in row))
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main() -> None:
    """Runs the demo; every step is the command that a user would type."""
    started = time.monotonic()
    data = write_data()
    print(f"data: {data}\n\n1/3  asking the base model five questions", flush=True)
    before = ask(QUESTIONS, "adapter_name_or_path=null")
    print(f"2/3  tunesmith train {CONFIG.relative_to(ROOT)}\n", flush=True)
    train = subprocess.run([sys.executable, "-m", "tunesmith", "train", str(CONFIG)], cwd=ROOT)
    if train.returncode:
        sys.exit(train.returncode)
    print("\n3/3  asking again, with the adapter\n", flush=True)
    adapter = FOLDER / "adapter"
    after = ask(QUESTIONS, f"adapter_name_or_path={adapter}")
    show(before, after)
    shown = adapter.relative_to(ROOT)
    print(f"\nadapter    {shown / 'adapter_model.safetensors'}")
    print(f"loss plot  {shown / 'training_loss.png'}")
    print(f"log        {shown / 'trainer_log.jsonl'}")
    print(f"took       {time.monotonic() - started:.0f} s")
    print("\ntalk to it:")
    print(f"  .venv/bin/tunesmith chat {CONFIG.relative_to(ROOT)} adapter_name_or_path={shown}")


if __name__ == "__main__":
    main()
