"""Tasks of lm-evaluation-harness through our engine: local definitions, a tiny model, no network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tests.conftest import make_tiny_llama

from tunesmith.cli.main import main
from tunesmith.core.errors import MissingPackageError, TunesmithError
from tunesmith.data.template import load_template
from tunesmith.evaluation.harness_requests import HarnessAnswers, sampling_of
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.scoring import ScoreRequest

ROWS = [
    {"q": f"the fox number {i}", "a": " dog", "b": " lazy model", "gold": i % 2, "long": "fox " * i} for i in range(6)
]
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{q}}}}{tail}"
"""
QUIZ = TASK + 'doc_to_target: gold\ndoc_to_choice: "{{{{[a, b]}}}}"\nmetric_list: [{{metric: acc}}]\n'
WRITE = TASK + (
    'doc_to_target: " dog"\ngeneration_kwargs: {{until: ["o"], max_gen_toks: 8}}\n'
    "metric_list: [{{metric: exact_match}}]\n"
)
ROLL = TASK.replace("{{{{q}}}}", "") + (
    'doc_to_target: "{{{{q}}}} {{{{long}}}}"\nmetric_list: [{{metric: word_perplexity}}]\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task_dir with three tasks."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "tasks"
    own.mkdir()
    data = own / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for name, kind, text, tail in (
        ("pond_quiz", "multiple_choice", QUIZ, ""),
        ("pond_write", "generate_until", WRITE, ":"),
        ("pond_roll", "loglikelihood_rolling", ROLL, ""),
    ):
        (own / f"{name}.yaml").write_text(text.format(name=name, kind=kind, data=data, tail=tail), encoding="utf-8")
    return own


@pytest.fixture
def both(tiny_tokenizer: Any) -> tuple[HarnessAnswers, HFLM, Any]:
    """Our answers and the harness's own model class over one model with 48 tokens of context."""
    model = make_tiny_llama(initializer_range=0.2, max_position_embeddings=48).eval()
    form = ChatFormat(load_template("fewshot"), tiny_tokenizer, end_token_ids=(2,))
    engine = HuggingFaceEngine(model, batch_size=4, decode=lambda ids: tiny_tokenizer.decode(list(ids)))
    theirs = HFLM(pretrained=model, tokenizer=tiny_tokenizer, backend="causal", batch_size=4, max_length=48)
    return HarnessAnswers(engine, form, {}), theirs, model


def asked(*args: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=one, arguments=one) for one in args]


def test_log_likelihoods_equal_the_harness_own_and_the_plain_computation(both: Any) -> None:
    ours, theirs, model = both
    pairs = [
        ("the quick", " brown fox"),
        ("the quick ", "brown fox"),
        ("", "who are you"),
        ("I am a model and " * 12, "the dog"),
        ("the quick", " brown fox"),
    ]
    found = ours.loglikelihood(pairs)
    for mine, their in zip(found, theirs.loglikelihood(asked(*pairs), disable_tqdm=True), strict=True):
        assert mine[0] == pytest.approx(their[0], abs=1e-4)
        assert mine[1] == their[1]
    head, tail = ours.pair(*pairs[0])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1)
    assert found[0][0] == pytest.approx(float(logits[range(len(tail)), tail].sum()), abs=1e-4)
    head, tail = ours.pair(*pairs[3])
    assert len(head) + len(tail) == 49, "as much as the model can read, cut from the left"


def test_rolling_equals_the_harness_own(both: Any) -> None:
    ours, theirs, _ = both
    texts = [("the quick brown fox",), ("who are you " * 20,), ("I am",)]
    mine = ours.loglikelihood_rolling(texts)
    assert mine == pytest.approx(theirs.loglikelihood_rolling(asked(*texts), disable_tqdm=True), abs=1e-3)
    for (text,) in texts:
        windows = get_rolling_token_windows(ours.encode(text), ours.start, 48, 1)
        assert ours.rolling(text) == [tuple(map(list, make_disjoint_window(window))) for window in windows]


def test_generation_equals_the_harness_own(both: Any) -> None:
    ours, theirs, _ = both
    requests = [
        ("the quick", {"until": ["x", " d"], "max_gen_toks": 6}),
        ("who " * 60, {"until": ["z"], "max_gen_toks": 4}),
    ]
    assert ours.generate_until(requests) == theirs.generate_until(asked(*requests), disable_tqdm=True)


def test_settings_of_generation() -> None:
    greedy = sampling_of({"until": "\n"})
    assert (greedy.is_greedy, greedy.stop, greedy.max_new_tokens) == (True, ("\n",), 256)
    drawn = sampling_of({"until": [], "do_sample": True, "temperature": 0.5, "max_new_tokens": 3, "top_k": 7})
    assert (drawn.do_sample, drawn.temperature, drawn.top_k, drawn.top_p, drawn.max_new_tokens) == (
        True,
        0.5,
        7,
        1.0,
        3,
    )
    with pytest.raises(TunesmithError, match="asks for logits_processor"):
        sampling_of({"logits_processor": [1]})


def words(model: str, folder: Path, names: str, *more: str) -> list[str]:
    return [
        "eval",
        f"model_name_or_path={model}",
        "template=fewshot",
        f"task=lm_eval:{names}",
        f"task_dir={folder}",
        *more,
    ]


def test_from_the_command_line_to_the_files(folder: Path, tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    out = tmp_path / "out"
    assert main(words(tiny_model_dir, folder, "pond_quiz,pond_write,pond_roll", f"save_dir={out}")) == 0
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    quiz = [row for row in rows if row["task"] == "pond_quiz"]
    assert len(rows) == 18
    right = 0
    for row in quiz:
        values = [float(pair[0][0] if isinstance(pair[0], list) else pair[0]) for pair in row["filtered_resps"]]
        right += values.index(max(values)) == row["doc"]["gold"]
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["pond_quiz"]["acc"]["value"] == pytest.approx(right / 6)
    assert metrics["pond_quiz"]["acc"]["stderr"] > 0 or right in (0, 6)
    assert set(metrics["pond_roll"]) == {"word_perplexity"}
    assert f"pond_quiz, acc: {right / 6:.4f}" in shown
    assert f"pond_quiz, acc: {right / 6:.4f}" in (out / "results.log").read_text()
    assert json.loads((out / "results.json").read_text())["results"]["pond_quiz"]["acc,none"] == pytest.approx(
        right / 6
    )
    assert len(pyarrow.parquet.read_table(out / "samples.parquet")) == 18


def test_a_killed_run_goes_on(
    folder: Path, tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Cut off in the middle, then run again: what was answered is not asked again, and the scores are the same."""
    assert main(words(tiny_model_dir, folder, "pond_quiz", f"save_dir={tmp_path / 'whole'}")) == 0
    score = HuggingFaceEngine.score
    seen: list[int] = []

    def counted(self: Any, requests: list[ScoreRequest], adapter: str | None = None) -> Any:
        for index, found in score(self, requests, adapter):
            if len(seen) == 5:
                raise KeyboardInterrupt
            seen.append(index)
            yield index, found

    monkeypatch.setattr(HuggingFaceEngine, "score", counted)
    out = tmp_path / "out"
    assert main(words(tiny_model_dir, folder, "pond_quiz", f"save_dir={out}")) != 0
    assert len((out / "requests.jsonl").read_text().splitlines()) == 5
    seen[:] = [-1] * 6
    assert main(words(tiny_model_dir, folder, "pond_quiz", f"save_dir={out}")) == 0
    assert len(seen) == 6 + 12 - 5
    assert (out / "results.log").read_bytes() == (tmp_path / "whole" / "results.log").read_bytes()
    capsys.readouterr()
    assert main(words(tiny_model_dir, folder, "pond_quiz", f"save_dir={out}", "seed=7")) == 2
    assert "holds results of another" in capsys.readouterr().err


def test_chat_templates_are_ours(folder: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    out = tmp_path / "out"
    assert main(words(tiny_model_dir, folder, "pond_write", f"save_dir={out}", "template=chatml")) == 0
    row = json.loads((out / "samples.jsonl").read_text().splitlines()[0])
    context = row["arguments"][0][0] if isinstance(row["arguments"], list) else row["arguments"]["gen_args_0"]["arg_0"]
    assert context.endswith("<|im_start|>user\nthe fox number 0:<|im_end|>\n<|im_start|>assistant\n")


def test_what_is_not_there_is_told(folder: Path, tiny_model_dir: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.yaml").write_text((folder / "pond_quiz.yaml").read_text().replace("rows.jsonl", "gone.jsonl")
                                        .replace("pond_quiz", "broken"))  # fmt: skip
    assert main(words(tiny_model_dir, folder, "broken")) == 2
    assert "lm_eval:broken cannot be loaded" in capsys.readouterr().err
    from lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", lambda **_: SimpleNamespace(all_tasks=["pond_quiz", "pond_roll"]))
    assert main(words(tiny_model_dir, folder, "pond_quizz")) == 2
    assert "has no task pond_quizz; did you mean pond_quiz?" in capsys.readouterr().err


def test_without_the_package_its_extra_is_named(folder: Path, tiny_model_dir: str, monkeypatch, capsys) -> None:
    from tunesmith.core import optional

    monkeypatch.setattr(optional, "is_installed", lambda name: name != "lm_eval")
    assert main(words(tiny_model_dir, folder, "pond_quiz")) == 2
    assert "pip install 'tunesmith[lm-eval]'" in capsys.readouterr().err
    assert issubclass(MissingPackageError, TunesmithError)
