"""Prediction: order, resumption after a kill, scores, and the files that users know."""

import json

import pytest
import yaml

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.data.auto_template import auto_template
from tunesmith.data.prompts import PromptRow
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.recipes import predict
from tunesmith.recipes.answering import Answering

N_ROWS = 40
AHEAD = "generated_predictions.ahead.jsonl"


@pytest.fixture
def rows(tiny_tokenizer):
    texts = [f"question {i} " + "fox " * (i * 7 % 11) for i in range(N_ROWS)]
    return [
        PromptRow(
            input_ids=tiny_tokenizer(text, add_special_tokens=False)["input_ids"],
            prompt_text=text,
            label_text=f"answer {i}",
            source=None,
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def echo(tiny_tokenizer):
    """Answers `question 7 ...` with `answer 7`, except for number 3."""

    def answer(request):
        number = tiny_tokenizer.decode(request.prompt_ids).split()[1]
        text = "something else" if number == "3" else f"answer {number}"
        return [*tiny_tokenizer(text, add_special_tokens=False)["input_ids"], 2]

    return answer


def prediction_of(folder, tiny_tokenizer, engine, **sampling):
    answering = Answering(
        file=folder / predict.ROWS_FILE,
        engine=engine,
        form=ChatFormat(auto_template(tiny_tokenizer), tiny_tokenizer, end_token_ids=(2,)),
        sampling=SamplingParams(max_new_tokens=30, **sampling),
        batch_size=2,
    )
    return predict.Prediction(folder, answering)


def lines(folder):
    return [json.loads(line) for line in (folder / predict.ROWS_FILE).read_text(encoding="utf-8").splitlines()]


def test_rows_are_in_order_and_scored(tmp_path, tiny_tokenizer, rows, echo):
    metrics = prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    written = lines(tmp_path)
    assert [row["label"] for row in written] == [f"answer {i}" for i in range(N_ROWS)]
    assert [row["predict"] == row["label"] for row in written] == [i != 3 for i in range(N_ROWS)]
    assert [row["prompt"] for row in written] == [row.prompt_text for row in rows]
    assert 97 < metrics["predict_rouge-l"] < 100
    assert set(metrics) == {
        *(f"predict_{name}" for name in ("bleu-4", "rouge-1", "rouge-2", "rouge-l")),
        "predict_runtime",
        "predict_samples_per_second",
        "predict_steps_per_second",
    }
    assert json.loads((tmp_path / "predict_results.json").read_text()) == metrics
    log = [json.loads(line) for line in (tmp_path / "trainer_log.jsonl").read_text().splitlines()]
    assert [(entry["current_steps"], entry["total_steps"]) for entry in log] == [(5, 20), (10, 20), (15, 20), (20, 20)]
    assert log[-1]["percentage"] == 100
    assert log[-1]["remaining_time"] == "0:00:00"


def test_each_row_carries_its_scores(tmp_path, tiny_tokenizer, rows, echo):
    prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    scores = [row["scores"] for row in lines(tmp_path)]
    assert {tuple(one) for one in scores} == {("bleu-4", "rouge-1", "rouge-2", "rouge-l")}
    assert scores[0]["rouge-1"] == pytest.approx(100, abs=1e-3)
    assert scores[3]["rouge-1"] == 0


def test_other_metrics_do_not_answer_again(tmp_path, tiny_tokenizer, rows, echo):
    """39 of 40 right; 'answer 3' of 'something else' is wrong. The answers stay as they are."""
    prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    before = [row["predict"] for row in lines(tmp_path)]
    engine = FakeEngine(echo)
    again = prediction_of(tmp_path, tiny_tokenizer, engine)
    again.board = lambda: Scoreboard(["exact_match", "f1"])
    metrics = again.run(rows, seed=1, weights="w")
    assert engine.requests == []
    assert metrics["predict_exact_match"] == 39 / 40
    assert metrics["predict_f1"] == pytest.approx(39 / 40)
    assert "predict_bleu-4" not in metrics
    assert [row["predict"] for row in lines(tmp_path)] == before
    assert lines(tmp_path)[3]["scores"] == {
        "exact_match": False,
        "predicted_label": "something else",
        "label": "answer 3",
        "correct": False,
    }


def test_a_function_that_fails_stops_at_the_first_answer(tmp_path, tiny_tokenizer, rows, echo):
    (tmp_path / "my.py").write_text("def f(predict, label):\n    return 1 / 0\n")
    engine = FakeEngine(echo, slots=2)
    prediction = prediction_of(tmp_path, tiny_tokenizer, engine)
    prediction.board = lambda: Scoreboard([f"{tmp_path / 'my.py'}:f"])
    with pytest.raises(TunesmithError, match=r"failed: ZeroDivisionError: division by zero \(line 2 of my.py\)"):
        prediction.run(rows, seed=1, weights="w")
    assert len(engine.requests) < N_ROWS


def test_all_results_are_merged(tmp_path, tiny_tokenizer, rows, echo):
    (tmp_path / "all_results.json").write_text('{"train_loss": 1.5}')
    prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    merged = json.loads((tmp_path / "all_results.json").read_text())
    assert merged["train_loss"] == 1.5
    assert "predict_bleu-4" in merged


class KilledError(Exception):
    pass


def dying(echo, after):
    count = 0

    def answer(request):
        nonlocal count
        count += 1
        if count > after:
            raise KilledError
        return echo(request)

    return answer


@pytest.mark.parametrize("torn", ["", '{"prompt": "hal'])
@pytest.mark.parametrize("torn_file", [predict.ROWS_FILE, AHEAD])
def test_a_killed_run_goes_on(tmp_path, tiny_tokenizer, rows, echo, torn, torn_file):
    with pytest.raises(KilledError):
        prediction_of(tmp_path, tiny_tokenizer, FakeEngine(dying(echo, 37), slots=2)).run(rows, seed=1, weights="w")
    done = len(lines(tmp_path))
    ahead = len((tmp_path / AHEAD).read_text().splitlines())
    assert 0 < done < 37
    assert ahead > 0  # shorter rows waited for a longer one before them
    with (tmp_path / torn_file).open("a") as handle:
        handle.write(torn)
    engine = FakeEngine(echo)
    prediction_of(tmp_path, tiny_tokenizer, engine).run(rows, seed=1, weights="w")
    assert len(engine.requests) == N_ROWS - done - ahead
    assert not (tmp_path / AHEAD).exists()
    whole = tmp_path / "whole"
    prediction_of(whole, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    assert (whole / predict.ROWS_FILE).read_bytes() == (tmp_path / predict.ROWS_FILE).read_bytes()


@pytest.mark.parametrize("change", ["weights", "seed", "sampling", "rows"])
def test_another_run_begins_anew(tmp_path, tiny_tokenizer, rows, echo, change, caplog):
    prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    engine = FakeEngine(echo)
    sampling = {"temperature": 0.1} if change == "sampling" else {}
    again = prediction_of(tmp_path, tiny_tokenizer, engine, **sampling)
    again.run(
        rows[:-1] if change == "rows" else rows,
        seed=2 if change == "seed" else 1,
        weights="v" if change == "weights" else "w",
    )
    assert len(engine.requests) == N_ROWS - (change == "rows")
    assert "is written anew" in caplog.text
    assert (tmp_path / f"{predict.ROWS_FILE}.old").exists()


def test_a_finished_run_is_only_scored(tmp_path, tiny_tokenizer, rows, echo):
    first = prediction_of(tmp_path, tiny_tokenizer, FakeEngine(echo)).run(rows, seed=1, weights="w")
    engine = FakeEngine(echo)
    second = prediction_of(tmp_path, tiny_tokenizer, engine).run(rows, seed=1, weights="w")
    assert engine.requests == []
    assert first["predict_bleu-4"] == second["predict_bleu-4"]


def test_each_row_draws_by_its_own_seed(tmp_path, tiny_tokenizer, rows, echo):
    engine = FakeEngine(echo)
    prediction_of(tmp_path, tiny_tokenizer, engine).run(rows, seed=100, weights="w")
    by_prompt = {tuple(row.input_ids): 100 + place for place, row in enumerate(rows)}
    assert len(engine.requests) == N_ROWS
    assert all(request.sampling.seed == by_prompt[tuple(request.prompt_ids)] for request in engine.requests)


def config_of(tmp_path, model, **changes):
    data = tmp_path / "rows.json"
    questions = [{"instruction": f"question {i}", "input": "", "output": f"answer {i}"} for i in range(7)]
    data.write_text(json.dumps(questions))
    keys = {
        "stage": "sft",
        "model_name_or_path": model,
        "do_predict": True,
        "predict_with_generate": True,
        "eval_dataset": str(data),
        "template": "auto",
        "cutoff_len": 128,
        "max_new_tokens": 6,
        "do_sample": False,
        "output_dir": str(tmp_path / "out"),
        "per_device_eval_batch_size": 3,
        **changes,
    }
    return RunConfig.from_dict(keys, command="train")


def test_run_on_the_tiny_model(tmp_path, tiny_model_dir):
    metrics = predict.run(config_of(tmp_path, tiny_model_dir))
    written = lines(tmp_path / "out")
    assert [row["label"] for row in written] == [f"answer {i}" for i in range(7)]
    assert all("question" in row["prompt"] and "<|im_start|>" in row["prompt"] for row in written)
    assert metrics["predict_runtime"] > 0
    resolved = yaml.safe_load((tmp_path / "out" / "training_args.yaml").read_text())
    assert resolved["max_new_tokens"] == 6


def test_metrics_by_name_from_the_configuration(tmp_path, tiny_model_dir):
    (tmp_path / "my.py").write_text("def length(predict, label):\n    return len(predict)\n")
    own = f"{tmp_path / 'my.py'}:length"
    metrics = predict.run(config_of(tmp_path, tiny_model_dir, metrics=["rouge", "json_valid", own]))
    names = {"rouge1", "rouge2", "rougeL", "json_valid", "length"}
    assert {f"predict_{name}" for name in names} < set(metrics)
    assert set(lines(tmp_path / "out")[0]["scores"]) == names
    everything = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert everything["predict_length"] == metrics["predict_length"] > 0


def test_batch_size_does_not_change_greedy_answers(tmp_path, tiny_model_dir):
    predict.run(config_of(tmp_path, tiny_model_dir))
    predict.run(config_of(tmp_path, tiny_model_dir, per_device_eval_batch_size=1, output_dir=str(tmp_path / "one")))
    assert lines(tmp_path / "out") == lines(tmp_path / "one")


def test_no_rows_is_an_error(tmp_path, tiny_model_dir, monkeypatch):
    monkeypatch.setattr("tunesmith.data.pipeline.prepare_prompts", lambda *a: [])
    with pytest.raises(DataError, match="no rows to predict"):
        predict.run(config_of(tmp_path, tiny_model_dir))
