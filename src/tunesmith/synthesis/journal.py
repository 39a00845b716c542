"""Every answer that was paid for, in an append-only file: a call whose answer is there is never made again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core import runs
from tunesmith.synthesis.calls import Asker, Call, Reply
from tunesmith.synthesis.cost import Meter

FILE = "calls.jsonl"


@dataclass(slots=True)
class Journal:
    """An asker that remembers.

    Attributes:
        path: of the file.
        asker: answers what is not there yet.
        meter: counts tokens and money.
        allow: raises where no new call may begin.
        reused: calls of this run whose answer was there.
        interrupted: calls that an earlier run had begun when it was killed; their answers, if any came, are lost.
    """

    path: Path
    asker: Asker
    meter: Meter
    allow: Callable[[], None] = lambda: None
    reused: int = 0
    interrupted: int = 0
    _known: dict[str, Reply] = field(default_factory=dict)
    _underway: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        begun = set()
        for line in runs.read_lines(self.path):
            key = str(line.get("key"))
            if line.get("event") == "begun":
                begun.add(key)
            elif line.get("event") == "failed":
                begun.discard(key)
            elif line.get("event") == "answer" and (reply := _reply(line)):
                self._known[key] = reply
                self.meter.add(reply, is_new=False)
        self.interrupted = len(begun - self._known.keys())

    @property
    def name(self) -> str:
        """Of the asker."""
        return self.asker.name

    def knows(self, call: Call) -> bool:
        """Whether the answer is there."""
        return call.key in self._known

    async def ask(self, call: Call) -> Reply:
        """The answer of an earlier run, or a new one, which is on the disk before it is used.

        Raises:
            CallFailedError, TunesmithError: as the asker's, or the call could cost too much.
        """
        key = call.key
        if key in self._known:
            self.reused += 1
            return self._known[key]
        if key in self._underway:
            return await asyncio.shield(self._underway[key])
        future = self._underway[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._new(call, key)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody may be waiting for it
            raise
        finally:
            del self._underway[key]
        future.set_result(reply)
        return reply

    async def _new(self, call: Call, key: str) -> Reply:
        self.allow()
        with self.meter.reserved(call):
            self._write("begun", key, purpose=call.purpose)
            started = time.monotonic()
            try:
                reply = await self.asker.ask(call)
            except Exception as error:
                self._write("failed", key, reason=str(error))
                raise
            facts = {
                "text": reply.text,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "is_cut": reply.is_cut,
            }
            seconds = round(time.monotonic() - started, 3)
            self._write("answer", key, model=call.model, purpose=call.purpose, seconds=seconds, **facts)
            self._known[key] = reply
            self.meter.add(reply, is_new=True)
        return reply

    def _write(self, event: str, key: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "key": key, **facts}, ensure_ascii=False)
        runs.append_line(self.path, line, sync=event == "answer")

    async def close(self) -> None:
        """Closes the asker."""
        await self.asker.close()


def _reply(line: dict[str, Any]) -> Reply | None:
    try:
        return Reply(
            str(line["text"]), int(line["prompt_tokens"]), int(line["completion_tokens"]), bool(line["is_cut"])
        )
    except (KeyError, TypeError, ValueError):
        return None
