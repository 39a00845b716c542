"""The loader: every YAML file fits the schema, every fact equals the golden one, nothing can be changed."""

import dataclasses
import json
from pathlib import Path

import pytest

from tunesmith.core.errors import TemplateError
from tunesmith.data.template import build_template, check_definition, load_template, template_names
from tunesmith.data.tools import load_tool_format, tool_format_names

GOLDEN = json.loads((Path(__file__).parent / "golden" / "templates.json").read_text("utf-8"))["templates"]


def test_every_golden_name_is_there():
    assert len(GOLDEN) == 124
    assert set(GOLDEN) <= set(template_names())


@pytest.mark.parametrize("name", template_names())
def test_every_template_loads_and_its_tool_format_exists(name):
    template = load_template(name)
    assert template.name == name
    assert load_tool_format(template.tool_format).tools_text is not None


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_facts_equal_the_golden_ones(name):
    template, facts = load_template(name, compat=True), GOLDEN[name]["facts"]
    for key in ("kind", "default_system", "replace_eos", "efficient_eos", "replace_jinja_template", "tool_format"):
        assert getattr(template, key) == facts[key], key
    for key in ("stop_words", "thought_words", "tool_call_words"):
        assert list(getattr(template, key)) == facts[key], key
    assert template.empty_thought == (facts["empty_thought"] or "")
    media = {key: value for key, value in facts["mm_plugin"].items() if value is not None and key != "expand_mm_tokens"}
    assert dict(template.mm_plugin) == media


def test_unknown_name_tells_the_nearest():
    with pytest.raises(TemplateError, match="'qwen3_nothink'"):
        load_template("qwen3_nothnk")


def test_unknown_field_and_wrong_type_are_errors():
    slots = {"user": "{{content}}", "assistant": "{{content}}"}
    assert build_template("x", slots).observation == ("{{content}}",)
    with pytest.raises(TemplateError, match="unknown field 'usr'"):
        check_definition("x", {**slots, "usr": "a"})
    for key, value in {"efficient_eos": "yes", "stop_words": "a", "kind": "odd", "thought_words": ["a"]}.items():
        with pytest.raises(TemplateError, match=key):
            check_definition("x", {**slots, key: value})
    with pytest.raises(TemplateError, match="user"):
        check_definition("x", {"user": "no place for the content"})
    with pytest.raises(TemplateError, match="missing"):
        build_template("x", {"user": "{{content}}"})


def test_a_template_cannot_be_changed():
    template = load_template("qwen")
    with pytest.raises(dataclasses.FrozenInstanceError):
        template.default_system = "other"
    with pytest.raises(TypeError):
        template.mm_plugin["name"] = "other"
    assert load_template("qwen") is template


def test_unknown_tool_format_tells_the_nearest():
    assert len(tool_format_names()) == 14
    with pytest.raises(TemplateError, match="'mistral'"):
        load_tool_format("mistrall")
