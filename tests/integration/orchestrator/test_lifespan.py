import asyncio

import pytest

from orchestrator import lifespan


@pytest.fixture(autouse=True)
def _no_other_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "_callbacks", [])


async def test_callbacks_run_at_the_same_time() -> None:
    both = asyncio.Barrier(2)
    done = []

    async def meet() -> None:
        await both.wait()
        done.append(1)

    for _ in range(2):
        lifespan.on_shutdown(meet)
    await lifespan.run_shutdown()
    assert done == [1, 1]


async def test_a_callback_that_fails_or_hangs_keeps_no_other_from_running(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifespan, "SHUTDOWN_SECONDS", 0.1)
    done = []

    async def fail() -> None:
        raise ValueError("no")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        done.append(1)

    for callback in (fail, hang, work):
        lifespan.on_shutdown(callback)
    await lifespan.run_shutdown()
    assert done == [1]
    assert "failed to prepare" in caplog.text
    assert "took too long" in caplog.text


async def test_a_callback_taken_off_does_not_run() -> None:
    async def never() -> None:
        pytest.fail("was taken off")

    forget = lifespan.on_shutdown(never)
    forget()
    forget()
    await lifespan.run_shutdown()
