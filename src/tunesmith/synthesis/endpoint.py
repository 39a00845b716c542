"""A generator behind an OpenAI-compatible address: POST /chat/completions with retries, and errors that say what to do.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx

from tunesmith.core.errors import GeneratorError
from tunesmith.core.log import get_logger
from tunesmith.synthesis.calls import Call, CallFailedError, Reply
from tunesmith.synthesis.counting import TokenCounter
from tunesmith.synthesis.retrying import LONGEST_WAIT, Gate, asked_wait, backoff

_logger = get_logger(__name__)
_AGAIN = frozenset({408, 409, 425, 429})
_OPTIONAL = ("temperature", "top_p")
_SHOWN = 300
_TRIES_TO_CONNECT = 2
_HOPELESS = {
    "no connection": "cannot be reached: {}; is the address right, and is the server up?",
    "a web page": "answers with a web page, not as an OpenAI-compatible API; the address mostly ends in /v1",
}
"""What will not change by waiting, if no call has ever been answered there."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how to ask.

    Attributes:
        base_url: up to and with `/v1`.
        api_key: sent as a bearer token; None: nothing is sent.
        timeout: seconds for a call, all of it.
        max_retries: repetitions of a call.
        retry_wait: seconds before the first of them.
    """

    base_url: str
    api_key: str | None = None
    timeout: float = 120.0
    max_retries: int = 6
    retry_wait: float = 1.0


class _Again(Exception):  # noqa: N818 - asks for a repetition, and never leaves this file
    """The call may succeed when it is repeated."""

    def __init__(self, reason: str, detail: str = "", wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.wait = wait


class Endpoint:
    """Asks an address.

    Args:
        address: where.
        counter: counts tokens where the endpoint does not.
        gate: limits the rate.
        concurrency: calls under way together, at most.
        is_proven: it has answered calls before.
    """

    def __init__(
        self, address: Address, counter: TokenCounter, gate: Gate, concurrency: int, *, is_proven: bool = False
    ) -> None:
        self.name = address.base_url
        self._address = address
        self._counter = counter
        self._gate = gate
        self._slots = asyncio.Semaphore(concurrency)
        self._is_proven = is_proven
        self._dropped: set[str] = set()
        self._limit_name = "max_tokens"
        headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=address.timeout,
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def ask(self, call: Call) -> Reply:
        """The answer, after as many repetitions as it takes and may take.

        Raises:
            CallFailedError: there is none.
            GeneratorError: there will be none for any call.
        """
        async with self._slots:
            repetition = 0
            while True:
                await self._gate.enter()
                try:
                    reply = await self._once(call)
                except _Again as again:
                    self._give_up_if_hopeless(again, repetition)
                    self._gate.repeated[again.reason] += 1
                    if again.wait is not None:
                        self._gate.pause(again.wait)
                    await asyncio.sleep(backoff(self._address.retry_wait, repetition))
                    repetition += 1
                else:
                    self._is_proven = True
                    return reply

    def _give_up_if_hopeless(self, again: _Again, repetition: int) -> None:
        if again.reason in _HOPELESS and not self._is_proven and repetition + 1 >= _TRIES_TO_CONNECT:
            raise GeneratorError(f"base_url {self.name} {_HOPELESS[again.reason].format(again.detail)}")
        if (again.wait or 0) > LONGEST_WAIT:
            wait = f"{(again.wait or 0) / 60:.0f} minutes ({again.reason}: {again.detail})"
            raise GeneratorError(f"{self.name} asks to wait {wait}; the same command goes on after that")
        if repetition >= self._address.max_retries:
            raise CallFailedError(again.reason, f"{again.detail} ({repetition + 1} tries)".strip())

    async def _once(self, call: Call) -> Reply:
        try:
            response = await asyncio.wait_for(
                self._client.post(
                    f"{self.name.rstrip('/')}/chat/completions",
                    json=self._body(call),
                    # A service that knows this header answers a repetition of the same call without charging for it.
                    headers={"Idempotency-Key": call.key},
                ),
                self._address.timeout,
            )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _Again("timeout", f"no answer within {self._address.timeout:g} s") from error
        except httpx.ConnectError as error:
            raise _Again("no connection", str(error)) from error
        except httpx.TransportError as error:
            raise _Again("connection lost", str(error)) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise GeneratorError(f"base_url {self.name} or api_key cannot be sent: {error}") from error
        if response.status_code != httpx.codes.OK:
            self._refused(response, call)
        return self._reply(response, call)

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": call.model,
            "messages": [{"role": message.role, "content": message.content} for message in call.messages],
            "temperature": call.temperature,
            "top_p": call.top_p,
            self._limit_name: call.max_tokens,
            **call.extra,
        }
        return {name: value for name, value in body.items() if name not in self._dropped}

    def _reply(self, response: httpx.Response, call: Call) -> Reply:
        try:
            body = response.json()
            choice = body["choices"][0]
            text = choice["message"].get("content") or ""
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            is_page = response.text.lstrip().startswith("<")
            raise _Again("a web page" if is_page else "broken reply", self._shown(response.text)) from error
        if choice.get("finish_reason") == "content_filter":
            raise CallFailedError("refused by the endpoint's content filter", self._shown(str(text)))
        usage = body.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(completion, int):
            words = "\n".join(message.content for message in call.messages)
            prompt, completion = self._counter.counts([words, str(text)])
        return Reply(str(text), prompt, completion, choice.get("finish_reason") == "length")

    def _refused(self, response: httpx.Response, call: Call) -> None:
        """Raises what an answer other than 200 means."""
        status, said = response.status_code, self._said(response)
        if status in _AGAIN or status >= 500:
            if "insufficient_quota" in response.text:
                raise GeneratorError(f"{self.name}: the account has no quota left: {said}")
            wait = asked_wait(response.headers.get("retry-after"), response.headers.get("retry-after-ms"))
            raise _Again(f"HTTP {status}", said, wait)
        if response.is_redirect:
            place = response.headers.get("location", "")
            raise GeneratorError(
                f"base_url {self.name} redirects to {place}; write that as base_url (keys do not follow redirects)"
            )
        if status in (400, 422) and self._adapt(said):
            raise _Again("unknown field", said)
        if message := self._meaning(status, said, call.model):
            raise GeneratorError(message)
        if not self._is_proven:
            raise GeneratorError(f"{self.name} refuses the first call with HTTP {status}: {said}")
        raise CallFailedError(f"HTTP {status}", said)

    def _meaning(self, status: int, said: str, model: str) -> str:
        """What statuses mean that no repetition mends; empty for others."""
        if status in (401, 403):
            reason = "the key is not accepted" if self._address.api_key else "it wants a key, and none is set"
            return f"{self.name}: {reason} (HTTP {status}: {said}); set API_KEY in the environment or .env"
        if status == 402:
            return f"{self.name}: the account cannot pay (HTTP 402: {said}); the same command goes on afterwards"
        if status == 404:
            return (
                f"{self.name} has no /chat/completions, or no model {model!r} (HTTP 404: {said}); "
                "base_url mostly ends in /v1, and generator_model is a name that the endpoint lists under /models"
            )
        return ""

    def _adapt(self, said: str) -> bool:
        """Newer models refuse fields of older ones and name them; whether the next try will be another one."""
        if "max_completion_tokens" in said and self._limit_name != "max_completion_tokens":
            self._limit_name = "max_completion_tokens"
            return True
        for name in _OPTIONAL:
            if name in said and name not in self._dropped:
                self._dropped.add(name)
                _logger.warning("%s does not take %s; it is left out", self.name, name)
                return True
        return False

    def _said(self, response: httpx.Response) -> str:
        """The endpoint's own words."""
        try:
            error = json.loads(response.text)
            error = error.get("error", error) if isinstance(error, dict) else error
            message = error.get("message") if isinstance(error, dict) else error
        except ValueError:
            message = None
        return self._shown(str(message or response.text or response.reason_phrase))

    def _shown(self, text: str) -> str:
        """A foreign text for a message: short, and without the key."""
        if self._address.api_key:
            text = text.replace(self._address.api_key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
