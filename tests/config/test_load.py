"""Files, overrides and flags to typed values."""

from __future__ import annotations

import math

import pytest

from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core import log
from tunesmith.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate: 1e-4", {"learning_rate": 1e-4}),
        ("learning_rate: 1.0e-4", {"learning_rate": 1e-4}),
        ("learning_rate: '1e-4'", {"learning_rate": 1e-4}),
        ("lora_rank: 8.0", {"lora_rank": 8}),
        ("lora_rank: '16'", {"lora_rank": 16}),
        ("plot_loss: on", {"plot_loss": True}),
        ("plot_loss: YES", {"plot_loss": True}),
        ("plot_loss: off", {"plot_loss": False}),
        ("eval_strategy: no", {"eval_strategy": "no"}),
        ("flash_attn: off", {"flash_attn": "disabled"}),
        ("include_num_input_tokens_seen: true", {"include_num_input_tokens_seen": "all"}),
        ("quantization_method: bitsandbytes", {"quantization_method": "bnb"}),
        ("dataset: a, b,c", {"dataset": ("a", "b", "c")}),
        ("dataset: [a, b]", {"dataset": ("a", "b")}),
        ("dataset:\n  - a\n  - b", {"dataset": ("a", "b")}),
        ("lora_target: all", {"lora_target": ("all",)}),
        ("report_to: none", {"report_to": ("none",)}),
        ("report_to: null", {"report_to": ("none",)}),
        ("stop: ['a,b', c]", {"stop": ("a,b", "c")}),
        ("stop: a,b", {"stop": ("a,b",)}),
        ("lora_rank: null", {"lora_rank": 8}),
        ("lora_rank:", {"lora_rank": 8}),
        ("max_samples: None", {"max_samples": None}),
        ("enable_thinking: null", {"enable_thinking": None}),
        ("default_system: ''", {"default_system": ""}),
        ("default_system: null", {"default_system": None}),
        ("system: hi", {"default_system": "hi"}),
        ("default_system: 'null'", {"default_system": "null"}),
        ("run_name: 12", {"run_name": "12"}),
        ("run_name: 1.10", {"run_name": "1.10"}),
        ("val_size: 1\neval_strategy: steps", {"val_size": 1.0, "do_eval": True}),
        (
            "lr_scheduler_kwargs: {min_lr: 1e-5, n: 2, on: yes}",
            {"lr_scheduler_kwargs": {"min_lr": 1e-5, "n": 2, "on": True}},
        ),
        ("lr_scheduler_kwargs: '{\"min_lr\": 1e-5}'", {"lr_scheduler_kwargs": {"min_lr": 1e-5}}),
        ("accelerator_config: some.json", {"accelerator_config": "some.json"}),
        (
            "gradient_checkpointing_kwargs: {use_reentrant: false}",
            {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        ),
        ("activation_checkpointing: true", {"gradient_checkpointing": True}),
        ("resume_from_checkpoint: null", {"resume_from_checkpoint": None}),
        ("resume_from_checkpoint: false", {"resume_from_checkpoint": False}),
    ],
)
def test_values_of_a_file(load, write, text: str, expected: dict) -> None:
    if text.startswith("dataset"):
        base = "model_name_or_path: m\noutput_dir: out\ndo_train: true\n"
        config = load_config([write(base + text)], "train")
    else:
        config = load(text)
    for name, value in expected.items():
        assert getattr(config, name) == value
        assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lora_rank=16"], {"lora_rank": 16}),
        (["--lora_rank", "16"], {"lora_rank": 16}),
        (["--lora-rank", "16"], {"lora_rank": 16}),
        (["--lora_rank=16"], {"lora_rank": 16}),
        (["--plot_loss"], {"plot_loss": True}),
        (["--plot_loss", "False"], {"plot_loss": False}),
        (["--plot-loss", "--lora_rank", "4"], {"plot_loss": True, "lora_rank": 4}),
        (["--no_use_kv_cache"], {"use_kv_cache": False}),
        (["--no-use-kv-cache"], {"use_kv_cache": False}),
        (["--packing", "False"], {"packing": False}),
        (["--packing"], {"packing": True}),
        (["--lora_target", "q_proj", "v_proj"], {"lora_target": ("q_proj", "v_proj")}),
        (["--lora_target", "q_proj", "v_proj", "lora_rank=4"], {"lora_target": ("q_proj", "v_proj"), "lora_rank": 4}),
        (["--lora_target", "[q_proj, v_proj]"], {"lora_target": ("q_proj", "v_proj")}),
        (["lora_target=[q_proj,v_proj]"], {"lora_target": ("q_proj", "v_proj")}),
        (["lr_scheduler_kwargs={min_lr: 1e-5}"], {"lr_scheduler_kwargs": {"min_lr": 1e-5}}),
        (["max_samples="], {"max_samples": None}),
        (["max_samples=null"], {"max_samples": None}),
        (["--max_steps", "-1"], {"max_steps": -1}),
        (["--default_system", ""], {"default_system": ""}),
        (["--default_system", "a=b c"], {"default_system": "a=b c"}),
        (["--system", "You are kind."], {"default_system": "You are kind."}),
        (["lora_rank=4", "--lora_rank", "5", "lora_rank=6"], {"lora_rank": 6}),
        (["learning_rate=2e-5"], {"learning_rate": 2e-5}),
        (["--resume_from_checkpoint", "false"], {"resume_from_checkpoint": False}),
    ],
)
def test_words_win_over_the_file(load, words: list[str], expected: dict) -> None:
    config = load("lora_rank: 2\nplot_loss: false\nmax_samples: 3\n", *words)
    for name, value in expected.items():
        assert getattr(config, name) == value
    assert config.do_train is True


def test_flags_alone(write) -> None:
    write("")
    words = ["--model_name_or_path", "m", "--do_train", "--dataset", "a,b", "--output_dir", "o", "--stage", "sft"]
    config = load_config(words, "train")
    assert config.dataset == ("a", "b")
    assert config.sources["stage"] == "--stage"
    assert config.explicit == {"model_name_or_path", "do_train", "dataset", "output_dir", "stage"}


def test_the_file_may_stand_anywhere_and_end_in_capitals(write) -> None:
    name = write("model_name_or_path: m\ntemplate: qwen\n", "RUN.YAML")
    config = load_config(["--temperature", "0.5", name, "--do_sample", "no"], "chat")
    assert (config.temperature, config.template, config.do_sample) == (0.5, "qwen", False)
    assert config.sources["template"] == "RUN.YAML:2"


def test_json(write) -> None:
    text = '{\n\t"model_name_or_path": "m",\n\t"template": "\\ud83d\\ude00/\\/",\n'
    text += '\t"top_k": 5, "do_sample": false, "seed": null}'
    config = load_config([write(text, "run.json")], "chat")
    assert config.template == "😀//"
    assert (config.top_k, config.do_sample, config.seed) == (5, False, 42)
    assert config.sources["template"] == "run.json:3"


def test_merge_keys_and_bom(write) -> None:
    write("")
    name = write("\ufeffmodel_name_or_path: m\n<<: {template: qwen, top_k: 7}\ntop_k: 9\n")
    config = load_config([name], "chat")
    assert (config.template, config.top_k) == ("qwen", 9)


def test_one_file_serves_every_command(load) -> None:
    text = "export_dir: merged\nn_shot: 3\nvllm_maxlen: 99\nlora_rank: 4\ntemperature: 0.1\nbatch_size: 2\n"
    train = load(text)
    assert set(train.unused) == {"export_dir", "n_shot", "batch_size"}
    assert load(text, command="export").unused
    assert "lora_rank" in load(text, "vllm_maxlen=4096", command="chat").unused
    assert load(text, command="data").dataset == ("identity",)


def test_interpolation(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_RANK", "32")
    monkeypatch.setenv("TS_EMPTY", "")
    monkeypatch.delenv("TS_NONE", raising=False)
    config = load(
        "lora_rank: ${oc.env:TS_RANK}\n"
        "run_name: r${lora_rank}-${oc.env:TS_NONE,${oc.env:TS_RANK}}\n"
        "eval_dataset: ${dataset}\n"
        "max_samples: ${oc.env:TS_NONE,null}\n"
        "default_system: 'plain $${x}'\n"
        "lora_dropout: ${env:TS_NONE, '0.5'}\n"
        "data_seed: ${seed}\n"
    )
    assert config.lora_rank == 32
    assert config.run_name == "r32-32"
    assert config.eval_dataset == ("identity",)
    assert config.max_samples is None
    assert config.default_system == "plain ${x}"
    assert config.lora_dropout == 0.5
    assert config.data_seed == 42


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("run_name: ${oc.env:TS_NONE}", "TS_NONE is not set", "give a default"),
        ("run_name: ${lora_rnk}", "refers to a key that does not exist", "lora_rank"),
        ("run_name: ${project}\nproject: ${run_name}", "refer to each other", ""),
        ("run_name: ${oc.decode:x}", "nothing is called oc.decode", "oc.env"),
    ],
)
def test_references_that_lead_nowhere(problems, monkeypatch, line: str, what: str, fix: str) -> None:
    monkeypatch.delenv("TS_NONE", raising=False)
    found = problems(line)
    assert what in found[0].what
    assert fix in found[0].fix
    assert found[0].where == "run.yaml:5"


def test_a_variable_that_names_itself_ends(load, monkeypatch) -> None:
    monkeypatch.setenv("TS_LOOP", "x${oc.env:TS_LOOP}")
    assert load("run_name: ${oc.env:TS_LOOP}").run_name


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("lora_rank: abc", "takes a whole number, not 'abc'"),
        ("lora_rank: 1.5", "takes a whole number"),
        ("lora_rank: true", "takes a whole number"),
        ("lora_rank: [8]", "not a list"),
        ("lora_rank: {a: 1}", "not a mapping"),
        ("lora_rank: 0", "must be at least 1, not 0"),
        ("lora_dropout: 1", "must be less than 1"),
        ("top_p: 0", "must be more than 0"),
        ("learning_rate: fast", "takes a number"),
        ("learning_rate: .nan", "takes a number"),
        ("learning_rate: inf", "takes a number"),
        ("learning_rate: true", "takes a number"),
        ("plot_loss: maybe", "takes true or false"),
        ("plot_loss: 2", "takes true or false"),
        ("lr_scheduler_kwargs: abc", "takes a mapping"),
        ("lr_scheduler_kwargs: '{a'", "is no mapping"),
        ("lora_target: {a: 1}", "not a mapping"),
        ("lora_target: [[a]]", "is a list or mapping itself"),
        ("eval_dataset: a，b", "full-width comma"),
        ("report_to: tensorbord", "cannot be 'tensorbord'"),
        ("lr_scheduler_type: cosin", "cannot be 'cosin'"),
        ("stage: SFT", "cannot be 'SFT'"),
    ],
)
def test_values_that_do_not_fit(problems, line: str, what: str) -> None:
    found = problems(line)
    assert len(found) == 1
    assert what in found[0].what
    assert line.partition(":")[0] in found[0].what
    assert found[0].where == "run.yaml:5"


def test_wrong_choices_name_the_nearest_and_all(problems) -> None:
    (found,) = problems("lr_scheduler_type: cosin")
    assert found.fix.startswith("did you mean cosine?")
    assert "warmup_stable_decay" in found.fix


def test_all_problems_at_once_in_the_order_of_the_file(problems) -> None:
    found = problems("lora_rnk: 3\nlora_alpha: x\nstage: stf\ndo_predict: true\n", "--top_q", "1")
    assert [problem.where for problem in found] == [
        "run.yaml:5",
        "run.yaml:6",
        "run.yaml:7",
        "run.yaml:8",
        "run.yaml:8",
        "--top_q",
    ]


def test_a_misspelt_key_is_not_reported_missing_as_well(write) -> None:
    name = write("model_name_or_pth: m\ndo_train: true\ndatset: a\noutput_dr: o\n")
    with pytest.raises(ConfigError) as caught:
        load_config([name], "train")
    assert [problem.what for problem in caught.value.problems] == [
        "unknown key model_name_or_pth",
        "unknown key datset",
        "unknown key output_dr",
    ]


def test_extra_keys_can_be_allowed(load, monkeypatch, capsys) -> None:
    log.setup()
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    assert load("my_own_key: 3").do_train
    assert "my_own_key is ignored" in capsys.readouterr().err


def test_python_values() -> None:
    config = RunConfig.from_dict(
        {
            "lora_target": ["q"],
            "report_to": "none",
            "val_size": 0.1,
            "stop": "x,y",
            "fp16": True,
            "interleave_probs": [],
        }
    )
    assert config.lora_target == ("q",)
    assert config.stop == ("x,y",)
    assert config.sources == {}
    with pytest.raises(ConfigError, match="lora_rank"):
        RunConfig.from_dict({"lora_rank": "x"})
    with pytest.raises(ConfigError, match="nothing is to be done"):
        RunConfig.from_dict({"model_name_or_path": "m"}, rules=True)
    with pytest.raises(ConfigError):
        RunConfig.from_dict({"learning_rate": math.nan})
    with pytest.raises(ValueError, match="no command"):
        RunConfig.from_dict({}, command="tran")


def test_secrets_do_not_show_in_places_and_warnings(load, capsys) -> None:
    log.setup()
    config = load("push_to_hub_token: geheim1\n", "hf_hub_token=geheim2", command="chat")
    assert config.hf_hub_token == "geheim2"
    assert "geheim" not in str(config.sources) + capsys.readouterr().err
