"""Rewards from a server: `reward_model_type: api`, POST {model, messages: [text]} and {scores: [number]} back."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from tunesmith.core.errors import TrainingError
from tunesmith.training.rewards import Sample, checked_scores

TIMEOUT = 300.0
"""Seconds that one batch of scores may take."""
TRIES = 4
"""A server that restarts is waited for: 1, 2 and 4 seconds between tries."""


class ServerReward:
    """Scores of whole texts by a reward model behind an address, such as `tunesmith api` with `stage: rm`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """The scores of some answers.

        Raises:
            TrainingError: the server refuses, or cannot be reached in several tries.
        """
        body = json.dumps({"model": "model", "messages": [one.text for one in samples]}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        for attempt in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                    return checked_scores(json.load(answer)["scores"], len(samples), self.url)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != http.client.TOO_MANY_REQUESTS:
                    detail = error.read(300).decode("utf-8", "replace")
                    raise TrainingError(f"reward_model: {self.url} refused: HTTP {error.code} {detail}") from error
                reason = f"HTTP {error.code}"
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f'reward_model: {self.url} did not answer {{"scores": [...]}}: {error}') from error
            except (OSError, http.client.HTTPException) as error:
                reason = str(error)
            if attempt < TRIES - 1:
                time.sleep(2**attempt)
        raise TrainingError(f"reward_model: no scores from {self.url} in {TRIES} tries: {reason}")
