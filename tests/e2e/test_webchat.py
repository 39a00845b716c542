"""`tunesmith webchat` as a process on the real 135M model, in Chromium; a signal ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from tests.studio.conftest import Shown
from tests.studio.conftest import browser as browser

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_question_in_the_browser(browser: Any) -> None:
    words = ["--model_name_or_path", "smollm2-135m", "--template", "smollm2", "--do_sample", "false"]
    command = [sys.executable, "-m", "tunesmith", "webchat", *words, "--max_new_tokens", "16"]
    environment = {**os.environ, "GRADIO_SERVER_PORT": "0"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr
    try:
        lines = iter(process.stderr)
        url = next(found.group(1) for line in lines if (found := re.search(r"the page is at (http://\S+);", line)))
        context = browser.new_context()
        shown = Shown(context.new_page())
        shown.open(url)
        assert "smollm2-135m is loaded" in shown.status
        assert shown.page.input_value("#chat-max_new_tokens input") == "16"
        assert float(shown.page.input_value("#chat-temperature input")) == 0
        shown.ask("What is the capital of France?")
        assert "Paris" in shown.text
        context.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
