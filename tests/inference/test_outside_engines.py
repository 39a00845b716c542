"""vLLM and SGLang from our side: keys and requests in their words, adapters by version; vLLM itself: make test-vllm."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.inference import sglang_stub
from tests.inference.conftest import make_adapter

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import MissingPackageError, ModelError
from tunesmith.inference import sglang, vllm
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import open_model
from tunesmith.inference.stored_base import Base, check_tokens, find_base
from tunesmith.inference.under_way import has_stop_text

BASE = Base(Path("/m"), "bfloat16", positions=2048, vocabulary=448, n_gpus=2, seed=7)


def config(model="m", command="api", **keys):
    return RunConfig.from_dict({"model_name_or_path": str(model), "template": "auto"} | keys, command=command)


@pytest.fixture
def stub(monkeypatch):
    """SGLang as a stub whose answers count up from the last token of the prompt."""
    monkeypatch.setitem(sys.modules, "sglang", sglang_stub.module())
    monkeypatch.setattr(sglang_stub.Engine, "made", [])
    monkeypatch.setattr(sglang_stub.Engine, "answer", lambda r: range(r.prompt_ids[-1] + 1, 400))
    return sglang_stub.Engine


def test_keys_of_vllm_reach_it():
    keys = {"vllm_maxlen": 1000, "vllm_gpu_util": 0.5, "vllm_enforce_eager": True, "vllm_max_lora_rank": 64}
    found = vllm.engine_arguments(config(**keys, trust_remote_code=True), BASE, 9, lora=True)
    expected = {
        "model": "/m",
        "dtype": "bfloat16",
        "max_model_len": 1000,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
        "max_lora_rank": 64,
        "enable_lora": True,
        "max_num_seqs": 9,
        "tensor_parallel_size": 2,
        "trust_remote_code": True,
        "seed": 7,
    }
    assert {name: found[name] for name in expected} == expected
    assert "enable_lora" not in vllm.engine_arguments(config(), BASE, 9, lora=False)
    assert vllm.engine_arguments(config(), BASE, 9, lora=False)["max_model_len"] == 2048
    given = vllm.engine_arguments(config(vllm_config={"max_num_seqs": 3, "block_size": 8}), BASE, 9, lora=False)
    assert (given["max_num_seqs"], given["block_size"]) == (3, 8)


def test_keys_of_sglang_reach_it(stub, tiny_model_dir):
    keys = {
        "infer_backend": "sglang",
        "infer_dtype": "float32",
        "sglang_maxlen": 100,
        "sglang_mem_fraction": 0.3,
        "sglang_tp_size": 3,
        "sglang_lora_backend": "flashinfer",
        "sglang_config": {"chunked_prefill_size": 5},
    }
    opened = open_model(config(tiny_model_dir, **keys), batch_size=4, keep_apart=True)
    (found,) = stub.made
    expected = {
        "model_path": tiny_model_dir,
        "dtype": "float32",
        "context_length": 100,
        "mem_fraction_static": 0.3,
        "tp_size": 3,
        "lora_backend": "flashinfer",
        "enable_lora": True,
        "chunked_prefill_size": 5,
        "max_running_requests": 4,
    }
    assert {name: found[name] for name in expected} == expected
    assert (opened.engine.context, opened.engine.stats().slots, opened.model) == (100, 4, None)
    assert opened.form.end_token_ids == (2,)
    assert sglang.engine_arguments(config(), BASE, 4, lora=False)["tp_size"] == 2
    assert "enable_lora" not in sglang.engine_arguments(config(), BASE, 4, lora=False)


def sglang_engine(stub, **arguments):
    made = sglang.engine_arguments(config(sglang_maxlen=128), BASE, 4, lora=True) | arguments
    return sglang.SglangEngine(stub(**made), made)


def test_requests_in_the_words_of_sglang(stub):
    engine = sglang_engine(stub)
    sampling = SamplingParams(
        temperature=0.5, top_p=0.8, top_k=0, seed=3, repetition_penalty=1.1, presence_penalty=0.2, max_new_tokens=2,
        frequency_penalty=0.3, logit_bias=((5, 1.5),), n=2, logprobs=1,
    )  # fmt: skip
    answers = sorted(done.token_ids for _, done in engine.generate([GenerationRequest([7, 8], sampling, (300,))]))
    assert answers == [(9, 10), (9, 10)]
    first, second = engine._engine.asked
    assert first["input_ids"] == [7, 8]
    assert first["sampling_params"] == {
        "temperature": 0.5, "top_p": 0.8, "top_k": -1, "repetition_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "max_new_tokens": 2, "stop_token_ids": [300], "ignore_eos": True,
        "logit_bias": {"5": 1.5}, "sampling_seed": 3,
    }  # fmt: skip
    assert second["sampling_params"]["sampling_seed"] != 3
    assert (first["return_logprob"], first["top_logprobs_num"]) == (True, 1)
    list(engine.generate([GenerationRequest([7, 8], replace(sampling, do_sample=False, seed=None))]))
    assert engine._engine.asked[-1]["sampling_params"]["temperature"] == 0
    assert "sampling_seed" not in engine._engine.asked[-1]["sampling_params"]


def test_what_sglang_has_not_is_refused(stub):
    engine = sglang_engine(stub, enable_deterministic_inference=False)
    for request, reason in (
        (GenerationRequest([5], SamplingParams(num_beams=2)), "no beam search"),
        (GenerationRequest([5], constraint=lambda answer: [1]), "cannot hold answers to a form"),
        (GenerationRequest([5], SamplingParams(seed=1)), "enable_deterministic_inference"),
    ):
        with pytest.raises(ModelError, match=reason):
            engine.submit(request)
    assert list(engine.generate([GenerationRequest([5], SamplingParams(max_new_tokens=1, do_sample=False, seed=1))]))


def test_an_engine_that_fails_says_so_in_the_step(stub, monkeypatch):
    engine = sglang_engine(stub)
    monkeypatch.setattr(stub, "answer", lambda request: 1 / 0)
    engine.submit(GenerationRequest([5]))
    with pytest.raises(ZeroDivisionError):
        engine.step()


def test_adapters_go_by_versions_and_leave_with_their_last_answer(stub, tmp_path):
    """The engine reads a folder of its own, in which ranks and scalings are plain; a new version has a new name."""
    engine, kinds = (
        sglang_engine(stub),
        {"a": {"r": 4}, "b": {"r": 8, "use_rslora": True, "rank_pattern": {"q_proj": 2}}},
    )
    a, b = (make_adapter(tmp_path / name, 1, **kind) for name, kind in kinds.items())
    engine.add_adapter("x", a)
    loras = engine._engine.loras
    assert list(loras) == ["version-1"]
    running = engine.submit(GenerationRequest([5], SamplingParams(max_new_tokens=3), adapter="x"))
    engine.replace_adapter("x", b)
    assert list(loras) == ["version-1", "version-2"]
    settings = json.loads((Path(loras["version-2"]) / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["r"], settings["lora_alpha"], settings.get("rank_pattern")) == (8, 8, None)
    later = engine.submit(GenerationRequest([5], SamplingParams(max_new_tokens=3), adapter="x"))
    while engine.stats().running or engine.stats().waiting:
        engine.step()
    assert [asked["lora_path"] for asked in engine._engine.asked] == ["version-1", "version-2"]
    assert list(loras) == ["version-2"]
    assert (running, later) == (1, 2)
    engine.remove_adapter("x")
    assert (loras, engine.adapter_names) == ({}, ())


@pytest.mark.filterwarnings("ignore")  # peft, of adapters on heads
def test_adapters_that_do_not_fit_are_refused(stub, tmp_path):
    engine = sglang_engine(stub, max_lora_rank=2, max_loaded_loras=1)
    for kind, reason in (
        ({"r": 4}, "rank 4, and room was made for 2; raise max_lora_rank"),
        ({"use_dora": True}, "DoRA"),
    ):
        with pytest.raises(ModelError, match=reason):
            engine.add_adapter("x", make_adapter(tmp_path / reason[:4], 1, **kind))
    small = make_adapter(tmp_path / "small", 1, r=2)
    engine.add_adapter("x", small)
    with pytest.raises(ModelError, match="holds 1 adapters already"):
        engine.add_adapter("y", small)
    with pytest.raises(ModelError, match="was started without LoRA"):
        sglang_engine(stub, enable_lora=False).add_adapter("x", small)


def test_several_configured_adapters(stub, tiny_model_dir, tmp_path):
    names = [str(make_adapter(tmp_path / name, seed, r=3)) for seed, name in enumerate("ab")]
    keys = {"infer_backend": "sglang", "adapter_name_or_path": names}
    opened = open_model(config(tiny_model_dir, **keys), batch_size=4)
    assert opened.adapter == " + ".join(names)
    assert opened.engine.adapter_names == (*names, opened.adapter)
    folders = [Path(path) for path in opened.engine._engine.loras.values()]
    parts = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    a, b, both = ((part[name.format("B")] @ part[name.format("A")]) for part in parts)
    assert both.allclose(a + b, atol=1e-5)


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_without_the_package_the_way_to_install_is_said(tiny_model_dir, backend):
    if backend in sys.modules:
        pytest.fail("this test is for environments without the package")
    with pytest.raises(
        MissingPackageError, match=rf"infer_backend: {backend} needs .*pip install 'tunesmith\[{backend}\]'"
    ):
        open_model(config(tiny_model_dir, infer_backend=backend), batch_size=1)


def test_stop_texts_of_several_bytes_a_character():
    """One character may be four tokens, so a stop text of one character is looked for in more than two."""
    text = "ab🙂c"
    ids = list(text.encode())
    ends = (has_stop_text(ids[:n], ["", "🙂"], lambda i: bytes(i).decode(errors="ignore")) for n in range(8))
    assert next(n for n, is_end in enumerate(ends) if is_end) == 6
    assert not has_stop_text(ids, ["x"], lambda i: bytes(i).decode(errors="ignore"))
    assert not has_stop_text(ids, ["c"], None)


def test_tokens_without_rows_are_refused(tiny_model_dir):
    base = find_base(config(tiny_model_dir))
    assert (base.vocabulary, base.positions) == (448, 256)
    with pytest.raises(ModelError, match="rows for them; export the model"):
        check_tokens(base, [0] * 449)
