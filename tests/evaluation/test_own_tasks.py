"""Tasks of one's own: files to questions and prompts, results, resumption, and faults with their place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.cli.main import main
from tunesmith.core.errors import DataError
from tunesmith.data.template import load_template
from tunesmith.evaluation.choices import ChoiceEvaluation, ChoiceSettings
from tunesmith.evaluation.continuations import score_answers, split_text
from tunesmith.evaluation.task_file import read_task
from tunesmith.evaluation.task_rows import read_prompts, read_subjects
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import GenerationRequest
from tunesmith.inference.hf import HuggingFaceEngine

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(yaml_text: str, **files: str) -> Path:
        for name, text in files.items():
            (tmp_path / name.replace("_csv", ".csv").replace("_jsonl", ".jsonl")).write_text(text, encoding="utf-8")
        path = tmp_path / "task.yaml"
        path.write_text(yaml_text, encoding="utf-8")
        return path

    return put


def words(model: str, task: Path, *more: str) -> list[str]:
    return ["eval", f"model_name_or_path={model}", "template=fewshot", f"task={task}", *more]


def read_all(path: Path) -> Any:
    task = read_task(path)
    return read_subjects(task) if task.kind == "multiple_choice" else read_prompts(task)


def test_three_ways_to_write_choices(write: Write) -> None:
    path = write("file: quiz.jsonl", quiz_jsonl=(
        '{"question": "q1", "choices": ["red", "green"], "answer": "green"}\n'
        '{"question": "q2", "choices": "red | green | blue", "answer": "a"}\n'
        '{"question": "q3", "A": 3, "B": 4, "answer": 4}\n'
    ))  # fmt: skip
    (subject,) = read_subjects(read_task(path))
    assert [(q.choices, q.answer) for q in subject.questions] == [
        (("red", "green"), 1),
        (("red", "green", "blue"), 0),
        (("3", "4"), 1),
    ]
    assert (subject.name, subject.title, subject.category) == ("task", "task", "Other")


def test_columns_subjects_and_examples(write: Write) -> None:
    path = write(
        "file: quiz.csv\nname: village_quiz\nexamples: worked.csv\n"
        "columns: {question: Frage, choices: [gut, schlecht], answer: Antwort, subject: Thema, category: Bereich}",
        quiz_csv="Thema,Bereich,Frage,gut,schlecht,Antwort\npond,STEM,f1,x,y,A\ntea,Humanities,f2,x,y,y\npond,STEM,f3,x,y,\n",
        worked_csv="Thema,Bereich,Frage,gut,schlecht,Antwort\npond,STEM,w1,x,y,A\nice,STEM,w2,x,y,B\n",
    )
    first, second = read_subjects(read_task(path))
    assert [q.text for q in first.questions] == ["f1", "f3"]
    assert (first.category, second.category) == ("STEM", "Humanities")
    assert first.questions[1].answer is None
    assert [q.text for q in first.examples] == ["w1"], "a subject's own examples"
    assert [q.text for q in second.examples] == ["w1", "w2"], "without examples of its own, all"


def test_prompts_with_columns_in_braces_and_several_references(write: Write) -> None:
    path = write(
        'file: sums.jsonl\nprompt: "What is {a} and {b}?"\nmetrics: [exact_match]',
        sums_jsonl='{"a": 1, "b": 2, "references": ["3", "three"]}\n{"a": 2, "b": 2, "references": "4"}\n',
    )
    items, examples = read_prompts(read_task(path))
    assert [(item.prompt, item.references) for item in items] == [
        ("What is 1 and 2?", ("3", "three")),
        ("What is 2 and 2?", ("4",)),
    ]
    assert examples == []


@pytest.mark.parametrize(
    ("yaml_text", "rows", "message"),
    [
        ("file: q.csv", "question,A,B,answer\nx,1,2,C\n", "q.csv, row 2, column answer: 'C' is neither a choice nor"),
        ("file: q.csv", "question,A,B,answer\nx,B,A,A\n", "'A' may mean several choices"),
        ("file: q.csv", "question,A,B,answer\n,1,2,A\n", "q.csv, row 2, column question: the cell is empty"),
        ("file: q.csv", "question,A,B,answer\nx,1,,A\n", "q.csv, row 2, column B: the cell is empty"),
        ("file: q.csv", "frage,A,B,answer\nx,1,2,A\n", "column question: there is no such column; the row has frage"),
        ("file: q.csv", "question,choices,answer\nx,lonely,A\n", "column choices: two to 26 choices are needed"),
        ("file: q.csv", "question,A,B,answer\nx,1\n", "q.csv, row 2: the row has 2 cells"),
        ("file: q.csv\nprompt: '{nothing}'", "a,references\n1,2\n", "column nothing: there is no such column"),
        ("file: q.csv\nkind: generation", "prompt,answer\n1,2\n", "column references: there is no such column"),
        ("file: gone.csv", "a\n", "file: there is no file"),
        ("file: q.csv\nmetricks: [f1]", "a\n", "unknown key metricks"),
        ("file: q.csv\nmetrics: [f2]", "a\n", "nobody knows f2"),
        ("file: q.csv\nmetrics: [regex_match]", "a\n", "regex_match needs the option regex"),
        ("file: q.csv\nmetrics: [f1]\nanswer_by: text", "a\n", "answer_by is for kind multiple_choice"),
        ("file: q.csv\nmetrics: f1", "a\n", "metrics takes a list, not 'f1'"),
        ("file: q.csv\nmetrics: [f1]\ntemperature: -1", "a\n", "temperature"),
        ("file: q.csv\nkind: essay", "a\n", "kind cannot be 'essay'"),
        ("file: q.csv\ncolumns: {question: q, colour: c}", "a\n", "columns: nothing is called colour"),
        ("file: [", "a\n", "task.yaml:"),
        ("- file", "a\n", "a task is a mapping of keys that names a file"),
    ],
)
def test_faults_have_their_place(write: Write, yaml_text: str, rows: str, message: str) -> None:
    path = write(yaml_text, q_csv=rows)
    with pytest.raises(DataError) as error:
        read_all(path)
    assert message in str(error.value)


def test_many_broken_rows_are_counted(write: Write) -> None:
    path = write("file: q.csv", q_csv="question,A,B,answer\n" + "x,1,2,C\n" * 25)
    with pytest.raises(DataError, match="15 more rows cannot be used"):
        read_subjects(read_task(path))


def test_whole_choices_by_log_probability_per_byte(write: Write, tiny_tokenizer: Any) -> None:
    """Equal to transformers alone on each whole text: sums within 1e-4, the best by bytes."""
    path = write("file: q.csv\nanswer_by: text", q_csv=(
        "question,A,B,C,answer\nwho are you,I am a model,the fox,dog,A\nover the lazy,dog,quick brown fox,model,A\n"
    ))  # fmt: skip
    model = make_tiny_llama(initializer_range=0.2).eval()
    form = ChatFormat(load_template("fewshot"), tiny_tokenizer, end_token_ids=(2,))
    task = read_task(path)
    settings = ChoiceSettings(n_shot=0, by_text=True, introduction="")
    answers = ChoiceEvaluation(HuggingFaceEngine(model, batch_size=2), form, settings).run(read_subjects(task))
    for answer in answers:
        head = tiny_tokenizer.encode(f"{answer.question}\nAnswer:")
        sums = []
        for choice in answer.choices:
            tail = tiny_tokenizer.encode(" " + choice)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1)
            sums.append(float(logits[range(len(tail)), tail].sum()))
        assert list(answer.logprobs.values()) == pytest.approx(sums, abs=1e-4)
        means = [value / len(choice) for value, choice in zip(sums, answer.choices, strict=True)]
        assert answer.predicted == "ABC"[means.index(max(means))]


def test_answers_of_one_token_take_one_pass(tiny_tokenizer: Any) -> None:
    model = make_tiny_llama(initializer_range=0.2).eval()
    engine = HuggingFaceEngine(model, batch_size=4)
    together = dict(score_answers(engine, [([5, 6, 7], [(8,), (9,)])]))[0]
    apart = dict(score_answers(engine, [([5, 6, 7], [(8,), (9, 10)])]))[0]
    assert together[0] == pytest.approx(apart[0], abs=1e-5)
    assert together[1][0] == pytest.approx(apart[1][0], abs=1e-5)


def test_a_text_is_split_where_its_tokens_are(tiny_tokenizer: Any) -> None:
    head, tail = split_text(tiny_tokenizer, "who are ", "you")
    assert head == tiny_tokenizer.encode("who are")
    assert [*head, *tail] == tiny_tokenizer.encode("who are you")
    head, tail = split_text(tiny_tokenizer, "", "you")
    assert (head, list(tail)) == ([1], tiny_tokenizer.encode("you"))


def test_tasks_as_documented(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(# tasks/.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    files = {
        "quiz_csv": "question,A,B,C,answer\nq,x,y,z,A\n",
        "worked_csv": "question,A,B,C,answer\nw,x,y,z,B\n",
        "sums_jsonl": '{"a": 2, "b": 3, "references": ["5", "five"]}\n',
    }
    path = write(blocks[0], **files)
    (subject,) = read_subjects(read_task(path))
    assert (len(subject.examples), read_task(path).by_text) == (1, True)
    path = write(blocks[1], **files)
    (path.parent / "my.py").write_text("def close_enough(predict, label):\n    return True\n")
    task = read_task(path)
    assert read_prompts(task)[0][0].prompt == "What is 2 + 3?"
    assert task.settings.metrics == ("exact_match", "number_match", f"{path.parent / 'my.py'}:close_enough")


QUIZ = "subject,question,A,B,answer\n" + "".join(f"{s},{s} question {i},x{i},y{i},A\n" for s in "pq" for i in range(4))
SUMS = "".join(json.dumps({"prompt": f"{i} and {i}:", "references": [str(2 * i), "many"]}) + "\n" for i in range(6))


def test_multiple_choice_through_the_command_line(write: Write, tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    path, out = write("file: quiz.csv\nname: letters", quiz_csv=QUIZ), tmp_path / "out"
    assert main(words(tiny_model_dir, path, f"save_dir={out}")) == 0
    summary = json.loads((out / "summary.json").read_text())
    rows = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    right = sum(row["predicted"] == "A" for row in rows)
    assert summary["task"] == "letters"
    assert summary["categories"]["Average"]["correct"] == right
    assert set(summary["subjects"]) == {"p", "q"}
    assert len(pyarrow.parquet.read_table(out / "questions.parquet")) == 8
    assert f"Average: {100 * right / 8:.2f}" in (out / "results.log").read_text()
    assert f"Average: {100 * right / 8:.2f}" in capsys.readouterr().out
    (tmp_path / "quiz.csv").write_text(QUIZ.replace("x3", "z3"))
    assert main(words(tiny_model_dir, path, f"save_dir={out}")) == 2
    assert "holds results of another" in capsys.readouterr().err
    assert main(words(tiny_model_dir, path, "n_shot=2")) == 2
    assert "the task names no examples" in capsys.readouterr().err


GENERATION = "file: sums.jsonl\nmax_new_tokens: 6\nmetrics: [exact_match, mine.py:length, corpus_bleu]"
MINE = "def length(predict, label):\n    return len(predict)\n"


def test_generation_through_the_command_line(write: Write, tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    path, out = write(GENERATION, sums_jsonl=SUMS), tmp_path / "out"
    (tmp_path / "mine.py").write_text(MINE)
    assert main(words(tiny_model_dir, path, f"save_dir={out}")) == 0
    rows = [json.loads(line) for line in (out / "generated_predictions.jsonl").read_text().splitlines()]
    mean = sum(len(row["predict"]) for row in rows) / 6
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["length"]["value"] == pytest.approx(mean, abs=1e-6)
    assert metrics["length"]["interval_95"][0] <= mean <= metrics["length"]["interval_95"][1]
    assert "interval_95" not in metrics["corpus_bleu"]
    assert rows[2]["references"] == ["4", "many"]
    assert json.loads((out / "results.json").read_text())["2"] == rows[2]["predict"]
    table = pyarrow.parquet.read_table(out / "generated_predictions.parquet").to_pylist()
    assert [row["scores"]["length"] for row in table] == [len(row["predict"]) for row in rows]
    assert f"length: {mean:.4f}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "results.json", "results.log", "summary.json", "generated_predictions.jsonl", "events.jsonl",
        "generated_predictions.parquet", "generated_predictions.state.json", "eval_args.yaml", ".run.lock",
    }  # fmt: skip
    (tmp_path / "sums.jsonl").write_text(SUMS.replace("many", "much"))
    assert main(words(tiny_model_dir, path, f"save_dir={out}")) == 2
    assert "holds results of another" in capsys.readouterr().err


def test_a_killed_generation_goes_on(
    write: Write, tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a run that was cut off, and of one that went through, are the same bytes; half is asked again."""
    path = write(GENERATION, sums_jsonl=SUMS)
    (tmp_path / "mine.py").write_text(MINE)
    assert main(words(tiny_model_dir, path, f"save_dir={tmp_path / 'whole'}")) == 0
    whole = (tmp_path / "whole" / "generated_predictions.jsonl").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "generated_predictions.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + b'{"prompt": ')
    state = "generated_predictions.state.json"
    (cut / state).write_bytes((tmp_path / "whole" / state).read_bytes())
    asked: list[GenerationRequest] = []
    submit = HuggingFaceEngine.submit

    def counted(self: HuggingFaceEngine, request: GenerationRequest) -> int:
        asked.append(request)
        return submit(self, request)

    monkeypatch.setattr(HuggingFaceEngine, "submit", counted)
    assert main(words(tiny_model_dir, path, f"save_dir={cut}")) == 0
    assert len(asked) == 3
    assert (cut / "generated_predictions.jsonl").read_bytes() == whole
    assert (cut / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_worked_examples_stand_before_prompts(write: Write, tmp_path: Path, tiny_model_dir: str) -> None:
    path = write(
        f"{GENERATION}\nexamples: worked.jsonl\nintroduction: 'Add up. '",
        sums_jsonl=SUMS,
        worked_jsonl='{"prompt": "7 and 7:", "references": "14"}\n',
    )
    (tmp_path / "mine.py").write_text(MINE)
    assert main(words(tiny_model_dir, path, f"save_dir={tmp_path / 'out'}", "n_shot=1")) == 0
    first = json.loads((tmp_path / "out" / "generated_predictions.jsonl").read_text().splitlines()[0])
    assert first["prompt"].endswith("Add up. 7 and 7: 14\n\n0 and 0:")
