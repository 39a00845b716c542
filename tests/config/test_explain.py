from __future__ import annotations

import json

import pytest

from tunesmith.config.explain import explain
from tunesmith.config.json_schema import json_schema
from tunesmith.config.legacy import NAMES
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import ConfigError


def test_every_key_is_explained_in_100_columns() -> None:
    for name, known in KEYS.items():
        text = explain(name)
        assert text.startswith(f"{name}\n  ")
        assert "default:" in text
        assert max(map(len, text.splitlines())) <= 100
        assert ("not yet:" in text) == bool(known.not_yet or known.not_yet_values), name


def test_values_and_where_they_come_from(load) -> None:
    config = load("lora_rank: 4\neval_strategy: steps\nval_size: 1\nhf_hub_token: geheim\n", "--top_k", "3")
    assert "here:     4  (run.yaml:5)" in explain("lora_rank", config)
    assert "here:     3  (--top_k)" in explain("top-k", config)
    assert "(the default)" in explain("seed", config)
    assert "follows from other keys" in explain("do_eval", config)
    assert "geheim" not in explain("hf_hub_token", config)
    assert "here:     4  (set)" in explain("lora_rank", RunConfig.from_dict({"lora_rank": 4}))


def test_notes_are_told() -> None:
    assert "note:" in explain("use_fast_tokenizer")


@pytest.mark.parametrize("name", NAMES)
def test_old_names_are_explained(name: str) -> None:
    assert f"{name} is an old name" in explain(name)


def test_aliases_are_explained() -> None:
    assert explain("system").startswith("default_system")


def test_unknown_names_find_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean lora_rank"):
        explain("lora_rnk")


def test_the_json_schema_knows_every_key() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert set(KEYS) <= set(schema["properties"])
    assert schema["properties"]["evaluation_strategy"]["deprecated"] is True
    rank = schema["properties"]["lora_rank"]
    assert {"type": "integer", "minimum": 1} in rank["anyOf"]
    assert rank["default"] == 8
    assert {"type": "null"} in rank["anyOf"]
    enum = schema["properties"]["eval_strategy"]["anyOf"][0]["enum"]
    assert set(enum) == {"no", "steps", "epoch", False}
    assert schema["properties"]["report_to"]["anyOf"][0]["items"]["enum"]
    for name, known in KEYS.items():
        assert known.help in schema["properties"][name]["description"]
