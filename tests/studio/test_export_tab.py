"""The export tab: what is started, and the proof that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Tab

from tunesmith.core.errors import ConfigError, TunesmithError
from tunesmith.recipes.jobs import export_run
from tunesmith.studio.choices import model_keys
from tunesmith.studio.exporting import export_config, report_page, target_of
from tunesmith.studio.workspace import Workspace

FORM: dict[str, Any] = {"export_dir": "models/merged", "export_size": 5, "export_device": "cpu", "infer_dtype": "auto"}


def test_a_run_is_exported(tiny_workspace: Workspace) -> None:
    model = model_keys(tiny_workspace, None, "saves/one/checkpoint-2", None)
    config = export_config(tiny_workspace, model, {**FORM, "infer_dtype": "bfloat16", "overwrite_export": False})
    assert (config.command, config.export_dir, config.infer_dtype) == ("export", "models/merged", "bfloat16")
    assert (config.template, config.adapter_name_or_path) == ("chatml", ("saves/one/checkpoint-2",))
    assert not config.unused
    assert target_of(export_run(config)) == Path("models/merged")


@pytest.mark.parametrize(
    ("fields", "more", "message"),
    [
        ({"export_dir": "/tmp/merged"}, {}, "outside the workspace"),
        ({"export_dir": "../merged"}, {}, "outside the workspace"),
        ({"export_dir": ""}, {}, "export_dir is missing"),
        ({}, {"cache_dir": "../elsewhere"}, "outside the workspace"),
        ({}, {"export_quantization_bit": "4"}, "quantised"),
        ({}, {"export_hub_model_id": "me/model"}, "hub"),
        ({}, {"export_legacy_format": "perhaps"}, "export_legacy_format"),
    ],
)
def test_what_cannot_be_exported(
    tiny_workspace: Workspace, fields: dict[str, Any], more: dict[str, str], message: str
) -> None:
    model = model_keys(tiny_workspace, None, "saves/one", None)
    with pytest.raises((TunesmithError, ConfigError), match=message):
        export_config(tiny_workspace, model, {**FORM, **fields}, more)


def test_the_proof(tmp_path: Path) -> None:
    assert report_page(tmp_path / "merged-export") == ""
    report = {
        "base": "<b>",
        "adapters": ["one", "two"],
        "max_logit_difference": 1.5e-7,
        "allowed_difference": 1e-4,
        "prompts": 12,
        "bytes": 2_000_000,
        "dtype": "float32",
        "effect_below_rounding": True,
    }
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "export_report.json").write_text(json.dumps(report))
    shown = report_page(tmp_path / "merged-export")
    assert "1.5e-07" in shown
    assert "one, two" in shown
    assert "2 MB" in shown
    assert "less than rounding" in shown
    assert "&lt;b&gt;" in shown
    assert "logit 最大差异" in report_page(tmp_path / "merged-export", "zh")


@pytest.mark.slow
def test_export_and_its_proof_in_the_browser(tab: Tab, studio_url: str, tiny_workspace: Workspace) -> None:
    tab.open(studio_url, "Export")
    tab.choose("export-run", "saves/two")
    tab.fill("export-export_dir", "../elsewhere")
    tab.page.click("#export-start")
    tab.page.wait_for_selector("text=outside the workspace")
    tab.fill("export-export_dir", "models/from_page")
    tab.page.click("#export-start")
    tab.until(lambda: "Export: finished" in tab.text("export-panel"), 120)
    tab.until(lambda: "largest difference of a logit" in tab.text("export-report"))
    assert "reading it back" in tab.text("export-panel")
    assert (tiny_workspace.root / "models" / "from_page" / "model.safetensors").is_file()
    tab.page.click("#export-start")  # there it is now
    tab.page.wait_for_selector("text=overwrite_export")


@pytest.mark.slow
def test_the_export_tab_on_a_phone(phone: Tab, studio_url: str) -> None:
    phone.open(studio_url, "Export")
    phone.page.wait_for_selector("#export-start")
