"""VLLM for real, beyond the contract: LoRA adapters, and the command line. It runs in make test-vllm."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tunesmith.core.optional import is_installed

if not is_installed("vllm"):
    pytest.skip("vLLM has an environment of its own: make test-vllm", allow_module_level=True)

from peft import LoraConfig, PeftModel, get_peft_model
from tests.inference import vllm_real

from tunesmith.core.errors import ModelError
from tunesmith.inference.chat import decode
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.runner import EngineRunner
from tunesmith.inference.serving_adapters import add_configured

GREEDY = SamplingParams(do_sample=False, max_new_tokens=10)
PROMPTS = ([504, 1823, 282, 4649, 314], [57, 5248, 253, 3544])


def fresh_model():
    return vllm_real.model.__wrapped__()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """LoRA adapters of different ranks and scalings on the real model, strong enough to change answers."""
    root, kinds = (
        tmp_path_factory.mktemp("adapters"),
        {
            "a": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
            "b": {"r": 8, "use_rslora": True, "target_modules": "all-linear", "rank_pattern": {"q_proj": 2}},
        },
    )
    for seed, (name, kind) in enumerate(kinds.items()):
        model = get_peft_model(fresh_model(), LoraConfig(task_type="CAUSAL_LM", lora_alpha=16, **kind))
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.03
        model.save_pretrained(str(root / name))
    return {name: root / name for name in kinds}


@pytest.fixture(scope="module")
def alone(adapters):
    """(adapter, number of the prompt) to what peft and transformers answer."""
    found = {}
    for name in (None, *adapters):
        model = fresh_model() if name is None else PeftModel.from_pretrained(fresh_model(), str(adapters[name])).eval()
        for place, prompt in enumerate(PROMPTS):
            ids = torch.tensor([prompt])
            settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
            made = model.generate(input_ids=ids, do_sample=False, max_new_tokens=10, **settings)
            found[name, place] = made[0, len(prompt) :].tolist()
    assert len({tuple(found[name, 0]) for name in (None, *adapters)}) == 3
    return found


@pytest.fixture
def engine():
    tokenizer = vllm_real.opened().form.tokenizer
    return vllm_real.engine(8, lambda ids: decode(tokenizer, ids, True))


def answers(engine, asked):
    requests = [GenerationRequest(PROMPTS[place], GREEDY, adapter=name) for name, place in asked]
    found = dict(engine.generate(requests))
    return [list(found[i].token_ids) for i in range(len(asked))]


def test_adapters_and_the_base_in_one_batch_equal_peft_alone(engine, adapters, alone):
    for name, path in adapters.items():
        engine.add_adapter(name, path)
    asked = [(name, place) for place in range(len(PROMPTS)) for name in (None, "a", "b")]
    assert answers(engine, asked) == [alone[one] for one in asked]


def test_a_replaced_adapter_never_answers_from_the_old_cache(engine, adapters, alone):
    engine.add_adapter("x", adapters["a"])
    assert answers(engine, [("x", 0)]) == [alone["a", 0]]
    running = engine.submit(GenerationRequest(PROMPTS[0], GREEDY, adapter="x"))
    made = [i for delta in engine.step() for i in delta.token_ids]
    engine.replace_adapter("x", adapters["b"])
    later, fresh = engine.submit(GenerationRequest(PROMPTS[0], GREEDY, adapter="x")), []
    while engine.stats().running or engine.stats().waiting:
        for delta in engine.step():
            (made if delta.request_id == running else fresh).extend(delta.token_ids)
    assert (made, fresh, later) == (alone["a", 0], alone["b", 0], 2)
    engine.remove_adapter("x")
    assert engine._loaded == {}
    with pytest.raises(ModelError, match="no adapter 'x'"):
        engine.submit(GenerationRequest(PROMPTS[0], GREEDY, adapter="x"))


def test_several_configured_adapters_together_equal_both_merged(engine, adapters):
    together, known = add_configured(engine, {str(path): path for path in adapters.values()})
    model = fresh_model()
    for path in adapters.values():
        model = PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    ids = torch.tensor([PROMPTS[0]])
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None}
    want = model.generate(input_ids=ids, do_sample=False, max_new_tokens=10, **settings)[0, len(PROMPTS[0]) :].tolist()
    assert answers(engine, [(together, 0)]) == [want]
    assert list(known) == [str(path) for path in adapters.values()]


def test_what_does_not_fit_is_refused_and_the_engine_goes_on(engine, adapters, alone, tmp_path):
    from tests.inference.conftest import make_adapter

    with pytest.raises(ModelError, match="does not fit this base model, says vllm"):
        engine.add_adapter("y", make_adapter(tmp_path / "tiny", 1))
    high = get_peft_model(fresh_model(), LoraConfig(task_type="CAUSAL_LM", r=32, target_modules=["q_proj"]))
    high.save_pretrained(str(tmp_path / "high"))
    with pytest.raises(ModelError, match="rank 32, and room was made for 16; raise vllm_max_lora_rank"):
        engine.add_adapter("y", tmp_path / "high")
    assert engine.adapter_names == ()
    assert answers(engine, [(None, 1)]) == [alone[None, 1]]


def test_the_runner_owns_it_in_a_thread(engine, alone):
    async def ask():
        runner = EngineRunner(engine)
        try:
            tickets = [runner.submit(GenerationRequest(prompt, GREEDY)) for prompt in PROMPTS]
            return [list(done.token_ids) for ticket in tickets for done in await ticket.completions()]
        finally:
            runner.close(timeout=30)

    assert asyncio.run(ask()) == [alone[None, place] for place in range(len(PROMPTS))]


def test_the_command_line_answers_the_same_through_either_engine(tmp_path):
    file = tmp_path / "chat.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in vllm_real.KEYS.items()), encoding="utf-8")
    said = {}
    for backend in ("vllm", "huggingface"):
        words = ["chat", str(file), f"infer_backend={backend}", "do_sample=false", "max_new_tokens=12"]
        done = subprocess.run(
            [sys.executable, "-m", "tunesmith", *words],
            input="What is the capital of France?\nexit\n",
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            cwd=Path.cwd(),
        )
        assert done.returncode == 0, done.stderr
        said[backend] = [line for line in done.stdout.splitlines() if line.startswith("Assistant:")]
    assert len(said["vllm"]) == 1
    assert said["vllm"] == said["huggingface"]
