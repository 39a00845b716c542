"""The runner: many asyncio clients, one engine; a full queue refuses, whoever leaves frees the place."""

import asyncio
import threading

import pytest

from tunesmith.core.errors import BusyError, ModelError
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.runner import EngineFailedError, EngineRunner


class Gated(FakeEngine):
    """Steps only while the gate is open; remembers its threads."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def step(self):
        self.gate.wait(10)
        self.threads.add(threading.get_ident())
        return super().step()


def ask(length, **sampling):
    return GenerationRequest([7] * length, SamplingParams(max_new_tokens=10**6, **sampling))


def echo(request):
    return [len(request.prompt_ids)] * 5


def with_runner(work, engine=None, **settings):
    """Runs `work(runner, engine)` on a loop and closes the runner."""
    engine = engine or Gated(echo)
    runner = EngineRunner(engine, **settings)
    try:
        return asyncio.run(asyncio.wait_for(work(runner, engine), 20))
    finally:
        engine.gate.set()
        assert runner.close(drain=False, timeout=10)


def test_sixteen_clients_get_their_own_answers():
    async def work(runner, engine):
        tickets = [runner.submit(ask(length, n=2)) for length in range(1, 17)]
        answers = await asyncio.gather(*(ticket.completions() for ticket in tickets))
        for length, completions in enumerate(answers, 1):
            assert [c.token_ids for c in completions] == [(length,) * 5] * 2
            assert [c.index for c in completions] == [0, 1]
        stats = runner.stats()
        assert (stats.finished, stats.queued, stats.running, stats.failed) == (16, 0, 0, 0)
        assert len(stats.first_token_seconds) == 16
        assert stats.first_token_p50 > 0
        assert stats.tokens_per_second == pytest.approx(16)
        assert len(engine.threads) == 1
        assert threading.get_ident() not in engine.threads

    with_runner(work)


def test_a_full_queue_refuses_and_recovers():
    async def work(runner, engine):
        engine.gate.clear()
        accepted = [runner.submit(ask(1)) for _ in range(3)]
        with pytest.raises(BusyError, match="3 requests wait already"):
            runner.submit(ask(1))
        assert runner.stats().refused == 1
        engine.gate.set()
        await asyncio.gather(*(ticket.completions() for ticket in accepted))
        await runner.submit(ask(1)).completions()

    with_runner(work, max_queue=3)


def test_cancellation_frees_the_slot():
    async def work(runner, engine):
        endless = runner.submit(ask(1))
        await endless.__anext__()
        waiting = runner.submit(ask(2))
        endless.cancel()
        assert [c.token_ids for c in await waiting.completions()] == [(2,) * 5]
        assert [delta async for delta in endless if delta.finish_reason] == []
        assert runner.stats().cancelled == 1

    def answer(request):
        return [1] * 10**6 if len(request.prompt_ids) == 1 else echo(request)

    engine = Gated(answer, slots=1)
    with_runner(work, engine)


def test_a_client_that_goes_away_frees_its_slot():
    async def work(runner, engine):
        engine.gate.clear()
        task = asyncio.create_task(runner.submit(ask(1)).completions())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.gate.set()
        await runner.submit(ask(1)).completions()
        assert runner.stats().cancelled == 1
        assert engine.stats().running == 0

    with_runner(work)


def test_a_refused_request_raises_from_its_ticket_and_harms_nobody():
    async def work(runner, engine):
        good, bad = runner.submit(ask(3)), runner.submit(GenerationRequest([7], adapter="nobody"))
        with pytest.raises(ModelError, match="no adapter 'nobody'"):
            await bad.completions()
        assert len(await good.completions()) == 1

    with_runner(work)


def test_a_failed_step_ends_its_requests_and_the_next_are_served():
    class Failing(Gated):
        fails = True

        def step(self):
            if self.fails:
                self.fails = False
                raise MemoryError("no memory")
            return super().step()

    async def work(runner, engine):
        with pytest.raises(EngineFailedError, match="no memory"):
            await runner.submit(ask(1)).completions()
        assert len(await runner.submit(ask(1)).completions()) == 1
        assert runner.stats().failed == 1

    with_runner(work, Failing(echo))


def test_calls_run_on_the_worker_between_steps(tmp_path):
    async def work(runner, engine):
        where = await asyncio.wrap_future(runner.call(lambda _: threading.get_ident()))
        await asyncio.wrap_future(runner.call(lambda e: e.add_adapter("a", tmp_path)))
        await runner.submit(GenerationRequest([7], adapter="a")).completions()
        assert engine.threads == {where}
        with pytest.raises(ModelError):
            await asyncio.wrap_future(runner.call(lambda e: e.remove_adapter("b")))

    with_runner(work)


def test_closing_finishes_what_runs_and_takes_no_more():
    async def work():
        engine = Gated(echo)
        runner = EngineRunner(engine)
        ticket = runner.submit(ask(1))
        answer = asyncio.create_task(ticket.completions())
        assert await asyncio.to_thread(runner.close, drain=True, timeout=10)
        assert (await answer)[0].token_ids == (1,) * 5
        with pytest.raises(BusyError, match="shutting down"):
            runner.submit(ask(1))

    asyncio.run(asyncio.wait_for(work(), 20))


def test_closing_at_once_ends_requests_with_an_error():
    async def work():
        engine = Gated(lambda request: [1] * 10**6)
        runner = EngineRunner(engine)
        ticket = runner.submit(GenerationRequest([7], SamplingParams(max_new_tokens=10**6)))
        await ticket.__anext__()
        assert await asyncio.to_thread(runner.close, drain=False, timeout=10)
        with pytest.raises(BusyError, match="shutting down"):
            await ticket.completions()

    asyncio.run(asyncio.wait_for(work(), 20))
