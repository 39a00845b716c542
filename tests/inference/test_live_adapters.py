"""Adapters that come and go: each answer is that of the adapter alone, whoever shares the batch; none is stale."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from peft import PeftModel
from tests.inference.conftest import make_adapter, make_llama, make_qwen3

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.hf import HuggingFaceEngine
from tunesmith.inference.schedule import Limits

NAMES = (None, "a", "b", "c", "d")


def ask(prompt, adapter=None, **sampling):
    settings = {"do_sample": False, "max_new_tokens": 10, **sampling}
    return GenerationRequest(prompt, SamplingParams(**settings), adapter=adapter)


def prompts(count, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(3, 448) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


def answers(engine, requests):
    found = dict(engine.generate(requests))
    return [list(found[i].token_ids) for i in range(len(requests))]


def alone(folder, prompt, n=10, beams=1, make=make_llama):
    """What peft and transformers answer."""
    model = make() if folder is None else PeftModel.from_pretrained(make(), str(folder)).eval()
    ids = torch.tensor([prompt])
    settings = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": None, "num_beams": beams}
    return model.generate(input_ids=ids, do_sample=False, max_new_tokens=n, **settings)[0, len(prompt) :].tolist()


@pytest.fixture(params=["line", "pieces", "padded"])
def engine(request, adapters):
    limits = Limits(chunk=6 if request.param == "pieces" else 128)
    engine = HuggingFaceEngine(make_llama(), batch_size=6, limits=limits, padded=request.param == "padded")
    for name, path in adapters.items():
        engine.add_adapter(name, path)
    return engine


def test_four_adapters_and_the_base_in_one_batch_equal_each_alone(engine, adapters):
    assert engine.adapter_names == ("a", "b", "c", "d")
    asked = [(name, prompt) for prompt in prompts(3) for name in NAMES]
    random.Random(0).shuffle(asked)
    expected = [alone(adapters.get(name), prompt) for name, prompt in asked]
    for _ in range(2):
        assert answers(engine, [ask(prompt, name) for name, prompt in asked]) == expected
    assert len({tuple(alone(adapters.get(name), [5, 6, 7])) for name in NAMES}) == 5


def test_the_same_prompt_under_each_adapter(engine, adapters):
    """Nothing of one adapter's keys and values reaches another."""
    prompt = prompts(1, seed=3)[0] * 2
    for name in (*NAMES, *NAMES):
        assert answers(engine, [ask(prompt, name)]) == [alone(adapters.get(name), prompt)]


def test_beams_use_the_adapter(engine, adapters):
    (beams,) = answers(engine, [ask([5, 6, 7], "a", num_beams=3)])
    assert beams == alone(adapters["a"], [5, 6, 7], beams=3)
    assert answers(engine, [ask([5, 6, 7])]) == [alone(None, [5, 6, 7])]


def test_a_replaced_adapter_never_answers_from_the_old_cache(engine, adapters):
    prompt = [5, 6, 7] * 6
    before = alone(adapters["a"], prompt)
    assert answers(engine, [ask(prompt, "a")]) == [before]
    running = engine.submit(ask(prompt, "a"))
    made = []
    for _ in range(4):
        made += [i for delta in engine.step() for i in delta.token_ids]
    engine.replace_adapter("a", adapters["d"])
    later = engine.submit(ask(prompt, "a"))
    fresh = []
    while engine.stats().running or engine.stats().waiting:
        for delta in engine.step():
            (made if delta.request_id == running else fresh).extend(delta.token_ids)
            assert delta.request_id in (running, later)
    assert made == before
    assert fresh == alone(adapters["d"], prompt)
    # The old one has finished in the meantime: what it left behind is of no use to anyone.
    assert answers(engine, [ask(prompt, "a")]) == [fresh]
    engine.replace_adapter("a", adapters["a"])
    assert answers(engine, [ask(prompt, "a")]) == [before]


def test_a_removed_adapter_is_refused_and_its_requests_finish(engine, adapters):
    running = engine.submit(ask([5, 6, 7], "b"))
    engine.step()
    engine.remove_adapter("b")
    assert engine.adapter_names == ("a", "c", "d")
    with pytest.raises(ModelError, match=r"no adapter 'b'; there are \['a', 'c', 'd'\]"):
        engine.submit(ask([5], "b"))
    engine.cancel(running)
    running = engine.submit(ask([5, 6, 7], "c"))
    made = []
    engine.remove_adapter("c")
    while engine.stats().running or engine.stats().waiting:
        made += [i for delta in engine.step() for i in delta.token_ids]
    assert made == alone(adapters["c"], [5, 6, 7])
    engine.add_adapter("b", adapters["b"])
    assert answers(engine, [ask([5, 6, 7], "b")]) == [alone(adapters["b"], [5, 6, 7])]


def test_fifty_swaps_under_load(engine, adapters):
    """Names a and b get weights of all four in turn; each answer is that of the weights at its submission."""
    rng, prompt_list = random.Random(7), prompts(4, seed=9)
    expected = {(key, i): alone(adapters[key], p, 4) for key in adapters for i, p in enumerate(prompt_list)}
    holds, asked, made = {"a": "a", "b": "b"}, {}, {}
    for _ in range(50):
        name, weights = rng.choice(["a", "b"]), rng.choice(list(adapters))
        engine.replace_adapter(name, adapters[weights])
        holds[name] = weights
        for _ in range(2):
            name, i = rng.choice(["a", "b"]), rng.randrange(len(prompt_list))
            asked[engine.submit(ask(prompt_list[i], name, max_new_tokens=4))] = (holds[name], i)
        for delta in engine.step():
            made.setdefault(delta.request_id, []).extend(delta.token_ids)
    while engine.stats().running or engine.stats().waiting:
        for delta in engine.step():
            made.setdefault(delta.request_id, []).extend(delta.token_ids)
    assert len(asked) == 100
    assert made == {request_id: expected[what] for request_id, what in asked.items()}


def test_names_are_taken_once(engine, adapters):
    with pytest.raises(ModelError, match="'a' already"):
        engine.add_adapter("a", adapters["a"])
    for act in (lambda: engine.replace_adapter("x", adapters["a"]), lambda: engine.remove_adapter("x")):
        with pytest.raises(ModelError, match="no adapter 'x'"):
            act()


BEYOND = {
    "dora": {"use_dora": True},
    "dora on the head": {"use_dora": True, "target_modules": ["lm_head", "gate_proj"]},
    "a head of its own": {"modules_to_save": ["lm_head"]},
    "norms and embedding of its own": {"modules_to_save": ["embed_tokens", "norm"], "target_modules": ["q_proj"]},
    "lora on the head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.parametrize("beyond", list(BEYOND))
@pytest.mark.parametrize("make", [make_llama, make_qwen3])
@pytest.mark.filterwarnings("ignore")  # peft, of adapters on tied weights
def test_more_than_low_rank_beside_others(tmp_path, make, beyond):
    """DoRA, whole modules and the head, for their own tokens alone, in the same passes as a plain adapter and none."""
    folders = {"x": make_adapter(tmp_path / "x", 5, make, **BEYOND[beyond]), "a": make_adapter(tmp_path / "a", 6, make)}
    asked = [(name, prompt) for prompt in prompts(2, seed=4) for name in ("x", None, "a", "x")]
    expected = [alone(folders.get(name), prompt, make=make) for name, prompt in asked]
    assert len({tuple(answer) for answer in expected[:3]}) == 3
    for settings in ({}, {"limits": Limits(chunk=6)}, {"padded": True}):
        engine = HuggingFaceEngine(make(), batch_size=6, **settings)
        for name, path in folders.items():
            engine.add_adapter(name, path)
        assert answers(engine, [ask(prompt, name) for name, prompt in asked]) == expected
    assert answers(engine, [ask([5, 6, 7], "x", num_beams=3)]) == [alone(folders["x"], [5, 6, 7], beams=3, make=make)]


@pytest.mark.filterwarnings("ignore")
def test_a_head_lora_of_another_base_is_refused(tmp_path):
    folder = make_adapter(tmp_path, 1, lambda: make_llama(initializer_range=0.2), **BEYOND["lora on the head"])
    assert "does not fit this base model: 'lm_head.base_layer.weight'" in refused(folder)


def refused(folder):
    engine = HuggingFaceEngine(make_llama())
    with pytest.raises(ModelError) as caught:
        engine.add_adapter("x", folder)
    assert engine.adapter_names == ()
    assert answers(engine, [ask([5, 6, 7])]) == [alone(None, [5, 6, 7])]
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainable_token_indices": {"embed_tokens": [3]}}, "rows of the embedding"),
        ({"bias": "lora_only"}, "it has biases"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "which cannot be served beside others"),
        ({"modules_to_save": ["mlp"], "target_modules": ["q_proj"]}, "is made of other modules"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_that_need_more_are_refused_with_the_reason(tmp_path, changes, reason):
    message = refused(make_adapter(tmp_path, 1, **changes))
    assert reason in message
    assert "merge it" in message


def test_broken_adapters_are_refused(tmp_path, adapters):
    assert "no readable adapter_config.json" in refused(tmp_path)
    shutil.copytree(adapters["a"], tmp_path / "cut")
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(b"x" * 20)
    assert "cannot be read" in refused(tmp_path / "cut")
    (tmp_path / "cut" / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in refused(tmp_path / "cut")
    wide = make_adapter(tmp_path / "wide", 1, lambda: make_llama(hidden_size=64))
    assert "does not fit this base model" in refused(wide)
    deep = make_adapter(tmp_path / "deep", 1, lambda: make_llama(num_hidden_layers=3))
    assert "does not fit this base model" in refused(deep)


def test_half_precision_weights_are_computed_as_peft_does(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = make_adapter(tmp_path, 2)
    file = folder / "adapter_model.safetensors"
    save_file({name: t.to(torch.bfloat16) for name, t in load_file(file).items()}, file)
    engine = HuggingFaceEngine(make_llama())
    engine.add_adapter("x", folder)
    assert answers(engine, [ask([5, 6, 7], "x")]) == [alone(folder, [5, 6, 7])]


def test_a_model_with_an_adapter_on_it_is_served_alone(adapters):
    engine = HuggingFaceEngine(PeftModel.from_pretrained(make_llama(), str(adapters["a"])))
    with pytest.raises(ModelError, match="served alone"):
        engine.add_adapter("b", adapters["b"])


def test_an_adapter_of_another_base_is_refused(tmp_path, adapters):
    from tunesmith.models.provenance import write_provenance

    base, other = tmp_path / "base", tmp_path / "other"
    make_llama().save_pretrained(base)
    make_llama(num_hidden_layers=1).save_pretrained(other)
    folder = shutil.copytree(adapters["a"], tmp_path / "adapter")
    write_provenance(folder, base_model="other", base_path=other, template="auto")
    engine = HuggingFaceEngine(make_llama(), base_path=base)
    with pytest.raises(ModelError, match="was trained on other"):
        engine.add_adapter("x", folder)
