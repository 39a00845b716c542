"""PPO and GRPO through the recipe on a tiny model: they learn, start exactly at the reference, and resume exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import RunConfig
from tunesmith.core.run_state import curves
from tunesmith.core.runs import Run
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.models.value_head import FILE, ValueHead, save_value_head, score_sequences
from tunesmith.recipes.train import run
from tunesmith.training.reward_model import AdapterReward, ModelReward
from tunesmith.training.rewards import Sample

Configure = Callable[..., RunConfig]
SCORE = (
    "def score(completions):\n"
    "    return [sum('a' <= letter <= 'z' for letter in text) / max(len(text), 1) for text in completions]\n"
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    """A tiny model whose random weights are large enough that an adapter can change what it says."""
    folder = tmp_path_factory.mktemp("loud-llama")
    make_tiny_llama(initializer_range=0.2).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def configure(tmp_path: Path, model_dir: str, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """A run over thirty prompts whose reward is the share of small letters."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    rows = [{"instruction": f"who are you {'the lazy dog ' * place}", "output": "I am"} for place in range(6)] * 5
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "my.py").write_text(SCORE)

    def make(name: str = "out", **keys: Any) -> RunConfig:
        settings: dict[str, Any] = {
            "model_name_or_path": model_dir,
            "stage": "grpo",
            "do_train": True,
            "dataset": str(tmp_path / "rows.json"),
            "template": "chatml",
            "force_template": True,
            "output_dir": str(tmp_path / name),
            "lora_rank": 4,
            "cutoff_len": 100,
            "max_new_tokens": 10,
            "num_generations": 4,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-2,
            "max_steps": 3,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "reward_funcs": [f"{tmp_path / 'my.py'}:score"],
        }
        settings |= keys
        if settings["stage"] != "grpo":
            del settings["num_generations"]
        return RunConfig.from_dict(settings)

    return make


def logs(config: RunConfig) -> list[dict[str, Any]]:
    events = Run(Path(str(config.output_dir))).events()
    return [event for event in events if event["event"] == "log" and "loss" in event]


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(str(config.output_dir)) / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "keys",
    [{}, {"finetuning_type": "full"}, {"finetuning_type": "freeze"}, {"stage": "ppo", "ppo_epochs": 1}],
    ids=["lora", "full", "freeze", "ppo"],
)
def test_the_first_update_starts_at_the_reference(configure: Configure, keys: dict[str, Any]) -> None:
    config = configure(max_steps=1, **keys)
    run(config)
    [first] = logs(config)
    assert first["kl"] == 0
    assert first["policy/ratio"] == 1
    assert first["policy/clipfrac"] == 0


PPO = {"stage": "ppo", "ppo_epochs": 1, "ppo_kl_weight": 0.0, "max_steps": 30}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"grpo_loss": "dapo", "grpo_scale_rewards": "none", "grpo_clip_high": 0.28, "grpo_beta": 0.0},
        {"grpo_loss": "dr_grpo", "grpo_scale_rewards": "batch", "grpo_epochs": 2},
        PPO | {"per_device_train_batch_size": 24, "ppo_whiten_rewards": True},
        PPO | {"per_device_train_batch_size": 12, "ppo_buffer_size": 2, "ppo_score_norm": True},
    ],
    ids=["grpo", "dapo", "dr_grpo", "ppo", "ppo_buffer"],
)
def test_a_toy_reward_rises(configure: Configure, keys: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"max_steps": 16, "per_device_train_batch_size": 3, "num_generations": 8}
    # Random embeddings leave an adapter little to say: their own weights are trained, too.
    config = configure(**(settings | {"learning_rate": 3e-2, "additional_target": ["embed_tokens"]} | keys))
    run(config)
    rewards = [value for _, value in curves(Path(str(config.output_dir)))["reward"]]
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert last > first + 0.1, rewards


ONLINE = pytest.mark.parametrize(
    "keys",
    [{"grpo_epochs": 2}, {"stage": "ppo", "ppo_epochs": 2, "ppo_score_norm": True, "ppo_whiten_rewards": True}],
    ids=["grpo", "ppo"],
)


@ONLINE
def test_the_cut_into_micro_batches_changes_nothing(configure: Configure, keys: dict[str, Any]) -> None:
    found = []
    for name, budget in (("a", 512), ("b", 60), ("c", 1)):
        config = configure(name, micro_batch_tokens=budget, optim="sgd", learning_rate=0.5, **keys)
        run(config)
        found.append(weights(config))
    for other in found[1:]:
        for key, value in found[0].items():
            torch.testing.assert_close(other[key], value, atol=1e-5, rtol=0)


@ONLINE
def test_batch_and_accumulation_are_one(configure: Configure, keys: dict[str, Any]) -> None:
    keys = keys | {"optim": "sgd", "learning_rate": 0.5}
    one = configure("a", **keys)
    other = configure("b", per_device_train_batch_size=1, gradient_accumulation_steps=2, **keys)
    run(one)
    run(other)
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "keys", [{"stage": "grpo"}, {"stage": "ppo", "ppo_score_norm": True}, {"stage": "grpo", "grpo_epochs": 2}]
)
def test_resume_is_exact(configure: Configure, keys: dict[str, Any]) -> None:
    whole = configure("whole", max_steps=4, save_strategy="steps", save_steps=2, **keys)
    run(whole)
    again = configure("again", max_steps=4, save_strategy="steps", save_steps=2, **keys)
    folder = Path(str(again.output_dir))
    folder.mkdir()
    shutil.copytree(Path(str(whole.output_dir)) / "checkpoint-2", folder / "checkpoint-2")
    run(again)
    assert len(logs(again)) == 2
    for name in ["adapter_model.safetensors"] + ([FILE] if keys["stage"] == "ppo" else []):
        assert (folder / name).read_bytes() == (Path(str(whole.output_dir)) / name).read_bytes()


def test_truncated_answers_can_be_left_out(configure: Configure) -> None:
    config = configure(max_steps=1, grpo_mask_truncated=True, max_new_tokens=1)
    run(config)
    [first] = logs(config)
    assert first["answers/truncated"] == 1
    assert first["loss"] == 0
    assert "policy/ratio" not in first


def test_a_dead_reward_is_named(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    run(configure(max_steps=6, reward_funcs=["json_valid"]))
    assert [record.message for record in caplog.records if "dead reward" in record.message]


@pytest.fixture
def reward_adapter(tmp_path: Path, configure: Configure) -> Path:
    """A reward adapter as a run of stage rm leaves it, with random weights."""
    config = configure("rm", max_steps=1)
    run(config)
    folder = Path(str(config.output_dir))
    torch.manual_seed(5)
    state = {name: torch.randn_like(value) * 0.2 for name, value in weights(config).items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    save_value_head(ValueHead(32), folder)
    return folder


def sample(ids: list[int]) -> Sample:
    return Sample("", "", "", "", len(ids), is_whole=True, ids=tuple(ids))


def test_a_reward_adapter_over_the_trained_base_scores_as_it_does_alone(
    configure: Configure, reward_adapter: Path
) -> None:
    config = configure("policy")
    tokenizer = load_tokenizer(config)
    alone = load_model(
        config.replace(stage="rm", adapter_name_or_path=(str(reward_adapter),)), tokenizer, trainable=False
    )
    policy = load_model(config, tokenizer, trainable=True)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)  # it must play no part
    samples = [sample([5, 6, 7]), sample(list(range(9, 60))), sample([300])]
    expected = score_sequences(alone, [one.ids for one in samples])
    assert len({round(score, 3) for score in expected}) == 3
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    assert AdapterReward(policy, reward_adapter)(samples) == pytest.approx(expected, abs=1e-5)
    assert ModelReward(alone)(samples) == expected
    assert policy.training
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_ppo_with_a_reward_adapter_saves_policy_and_critic_only(configure: Configure, reward_adapter: Path) -> None:
    config = configure(
        "ppo", stage="ppo", reward_funcs=[], reward_model=str(reward_adapter), reward_model_type="lora", max_steps=2
    )
    run(config)
    assert weights(config).keys() == load_file(reward_adapter / "adapter_model.safetensors").keys()
    assert (Path(str(config.output_dir)) / FILE).is_file()
    assert len({event["reward"] for event in logs(config)}) == 2
