"""POST /v1/score/evaluation: a tiny reward model with a value head, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tests.serving.conftest import MODEL, Stage, make_form, served, wait_until

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.value_head import ValueHead, save_value_head
from tunesmith.serving.reward import RewardEngine, load_reward_service, reward_service
from tunesmith.serving.settings import ServerSettings
from tunesmith.training.reward_server import ServerReward
from tunesmith.training.rewards import Sample

TEXTS = ["who are you", "<|im_start|>user\nI am a model<|im_end|>\n", "the quick brown fox " * 6]


@pytest.fixture(scope="module")
def folder(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head beside it."""
    path = tmp_path_factory.mktemp("reward")
    for file in Path(tiny_model_dir).iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(5)
    save_value_head(ValueHead(32), path)
    return path


def config_of(folder: Path | str) -> RunConfig:
    keys = {"model_name_or_path": str(folder), "template": "auto", "stage": "rm"}
    return RunConfig.from_dict(keys, command="api", rules=True)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with served(load_reward_service(config_of(folder), ServerSettings())) as (address, _):
        yield address


def post(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/score/evaluation", json={"model": "model", "messages": TEXTS, **fields}, timeout=20)


def by_hand(folder: Path, text: str) -> float:
    """The last hidden state of transformers' own model, times the head's weights."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    head = load_file(folder / "value_head.safetensors")
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0, -1]
    return float(hidden @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0])


def test_scores_are_those_of_the_model(url: str, folder: Path) -> None:
    reply = post(url, model=str(folder)).json()
    assert reply["id"].startswith("scoreval-")
    assert (reply["object"], reply["model"]) == ("score.evaluation", str(folder))
    assert reply["scores"] == pytest.approx([by_hand(folder, text) for text in TEXTS], abs=1e-4)
    assert len(set(reply["scores"])) == 3
    for text, score in zip(TEXTS, reply["scores"], strict=True):
        assert post(url, messages=[text]).json()["scores"] == pytest.approx([score], abs=1e-5)


def test_a_reward_model_as_it_was_trained(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage rm, LoRA: the training file serves as it is, with its adapter named."""
    from tunesmith.recipes import train

    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    pair = {"instruction": "Hi", "input": "", "chosen": "Hello!", "rejected": "Go away."}
    info = {
        "pairs": {
            "file_name": "pairs.json",
            "ranking": True,
            "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
        }
    }
    (tmp_path / "pairs.json").write_text(json.dumps([pair] * 4))
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    keys = {
        "model_name_or_path": tiny_model_dir,
        "template": "auto",
        "stage": "rm",
        "do_train": True,
        "dataset": "pairs",
        "dataset_dir": str(tmp_path),
        "max_steps": 2,
        "learning_rate": 0.1,
        "cutoff_len": 64,
        "output_dir": str(tmp_path / "out"),
    }
    train.run(RunConfig.from_dict(keys, command="train", rules=True))
    named = {**keys, "adapter_name_or_path": str(tmp_path / "out")}
    service = load_reward_service(RunConfig.from_dict(named, command="api", rules=True), ServerSettings())
    with served(service) as (url, _):
        scores = post(url, model=str(tmp_path / "out")).json()["scores"]
    assert len(set(scores)) == 3
    assert all(abs(score) < 100 for score in scores)


def test_our_own_reward_client(url: str) -> None:
    """`reward_model_type: api` of PPO and GRPO asks it this way."""
    samples = [Sample("", "", "", text, 1, True) for text in TEXTS]
    scores = ServerReward(f"{url}/v1/score/evaluation")(samples)
    assert scores == pytest.approx(post(url).json()["scores"], abs=1e-5)


def test_long_texts(url: str) -> None:
    long = "the quick brown fox " * 500
    refused = post(url, messages=["short", long])
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "messages[1]"
    cut = post(url, messages=[long], max_length=5).json()["scores"]
    assert cut == pytest.approx(post(url, messages=["the quick brown fox the"], max_length=5).json()["scores"])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"messages": []}, 400),
        ({"messages": [""]}, 400),
        ({"messages": [1]}, 400),
        ({"messages": "x"}, 400),
        ({"messages": ["\ud800"]}, 400),
        ({"messages": ["x"] * 2000}, 400),
        ({"max_length": 0}, 400),
        ({"max_length": "5"}, 400),
        ({"model": "nobody"}, 404),
        ({"model": None}, 400),
        ({"temperature": 1}, 400),
    ],
)
def test_bad_requests(url: str, fields: dict[str, Any], status: int) -> None:
    content = json.dumps({"model": "model", "messages": TEXTS, **fields})
    reply = httpx.post(
        f"{url}/v1/score/evaluation", content=content.encode(), headers={"content-type": "application/json"}
    )
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["message"]


def test_it_answers_nothing(url: str) -> None:
    body = {"model": "model", "messages": [{"role": "user", "content": "Hi"}]}
    for stream in (False, True):
        refused = httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": stream})
        assert refused.status_code == 405
        assert "reward model" in refused.json()["error"]["message"]
    assert httpx.post(f"{url}/v1/completions", json={"model": "model", "prompt": "a"}).status_code == 405
    assert "model" in [entry["id"] for entry in httpx.get(f"{url}/v1/models").json()["data"]]
    assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_models_that_answer_give_no_scores(stage: Stage) -> None:
    refused = stage.post("/v1/score/evaluation", model=MODEL, messages=["a"])
    assert refused.status_code == 405
    assert "reward models give scores" in refused.json()["error"]["message"]


def test_without_a_value_head(tiny_model_dir: str) -> None:
    with pytest.raises(ModelError, match="no reward model"):
        load_reward_service(config_of(tiny_model_dir), ServerSettings())


def test_queue_time_and_faults() -> None:
    """Over a scorer that the test holds up."""
    held = threading.Event()

    def score_of(sequences: Any) -> list[float]:
        assert held.wait(10)
        if len(sequences) == 2:
            raise RuntimeError("secret")
        return [0.5] * len(sequences)

    service = reward_service(
        RewardEngine(score_of, 100), make_form(), config_of("x/y"), ServerSettings(max_queue=1, timeout=0.3)
    )
    with served(service) as (url, _):
        late = post(url, messages=["a"])
        assert late.status_code == 504
        service.settings = ServerSettings(max_queue=1, timeout=20)
        first: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: first.append(post(url, messages=["a"])))
        thread.start()
        wait_until(lambda: service._scoring == 1)
        assert post(url, messages=["a"]).status_code == 429
        held.set()
        thread.join(10)
        assert first[0].json()["scores"] == [0.5]
        broken = post(url, messages=["a", "b"])
        assert broken.status_code == 500
        assert "secret" not in broken.text
