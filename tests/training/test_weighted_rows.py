"""Row weights through whole runs: from the file to the weights of the model and the evaluation loss."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.conftest import make_byte_tokenizer
from tests.training.test_trainer import Rows, assert_same, make_trainer, weights

from tunesmith.config.schema import RunConfig
from tunesmith.data import pipeline
from tunesmith.data.template import build_template

TEMPLATE = build_template("plain", {"user": "U{{content}}>", "assistant": ["{{content}}", "{{eos_token}}"]})
FLOATS = (0.1, 1, 0.375, 2.5, 1 / 3, 1, 7)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))


def row(index: int, weight: float | None = None) -> dict[str, Any]:
    words = random.Random(index)
    text = {name: "".join(words.choices("abc ", k=words.randrange(3, 20))) for name in ("instruction", "output")}
    return text if weight is None else {**text, "weight": weight}


def prepare(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Any:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    given = {"do_train": True, "dataset": str(file), **keys}
    return pipeline.prepare(RunConfig.from_dict(given), make_byte_tokenizer(), TEMPLATE)


def run(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights and log of a whole run with evaluations in it."""
    folder.mkdir()
    prepared = prepare(folder, rows, eval_dataset=str(folder / "rows.jsonl"), **keys)
    trainer = make_trainer(
        folder,
        prepared.train,
        eval_rows=prepared.eval,
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=3,
        lora_dropout=0.1,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer.train()
    timed = ("_runtime", "_per_second")
    log = [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in trainer.state.log_history]
    return weights(trainer), log


@pytest.mark.parametrize("keys", [{}, {"streaming": True}, {"packing": True, "cutoff_len": 60}])
def test_weight_0_trains_and_evaluates_bit_for_bit_as_the_row_removed(tmp_path: Path, keys: dict[str, Any]) -> None:
    given = [FLOATS[index % len(FLOATS)] for index in range(17)]
    zeros = {0, 5, 11, 16}
    with_zeros = [row(index, 0 if index in zeros else weight) for index, weight in enumerate(given)]
    removed = [row(index, weight) for index, weight in enumerate(given) if index not in zeros]
    (left, left_log), (right, right_log) = (
        run(tmp_path / name, rows, **keys) for name, rows in (("zeros", with_zeros), ("removed", removed))
    )
    assert left
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert left_log == right_log
    assert any("eval_loss" in entry for entry in left_log)


def weighted(count: int) -> Rows:
    rows = Rows(count)
    for index, item in enumerate(rows.items):
        item["weights"] = [FLOATS[index % len(FLOATS)]]
    return rows


def token_losses(model: Any, item: dict[str, Any]) -> torch.Tensor:
    ids, labels = torch.tensor([item["input_ids"]]), torch.tensor(item["labels"])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")


def weighted_mean(model: Any, items: list[dict[str, Any]]) -> torch.Tensor:
    """(sum of weight x losses) / (sum of weight x trained tokens)."""
    counts = [sum(label != -100 for label in item["labels"][1:]) * item["weights"][0] for item in items]
    losses = [token_losses(model, item) * item["weights"][0] for item in items]
    return torch.stack(losses).sum() / sum(counts)


def test_float_weights_equal_a_plain_loop_written_independently(tmp_path: Path) -> None:
    rows = weighted(8)
    keys: dict[str, Any] = {"max_steps": 2, "disable_shuffling": True, "optim": "sgd", "max_grad_norm": 0.0}
    trainer = make_trainer(tmp_path, rows, 40, per_device_train_batch_size=4, lr_scheduler_type="constant", **keys)
    plain = make_trainer(tmp_path, rows).model
    plain.get_base_model().set_attn_implementation("eager")
    trainer.train()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(2):
        loss = weighted_mean(plain, rows.items[4 * step : 4 * step + 4])
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert_same(weights(trainer), {n: p for n, p in plain.named_parameters() if p.requires_grad}, atol=1e-6)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, rel=1e-4)


def test_float_weights_count_in_the_evaluation_loss(tmp_path: Path) -> None:
    rows = weighted(9)
    found = [
        make_trainer(tmp_path, Rows(2), eval_rows=rows, per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (1, 4, 9)
    ]
    model = make_trainer(tmp_path, Rows(2)).model.eval()
    model.get_base_model().set_attn_implementation("eager")
    with torch.no_grad():
        expected = weighted_mean(model, rows.items).item()
    assert found == pytest.approx([expected] * 3, rel=1e-5)
    plain = make_trainer(tmp_path, Rows(2), eval_rows=Rows(9)).evaluate()["eval_loss"]
    assert abs(plain - expected) > 1e-4
