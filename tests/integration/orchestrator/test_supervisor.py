import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator import supervisor
from orchestrator.supervisor import BootFailed, ChildSpec, Supervisor
from tests.support.api import wait_until
from tests.support.child import REPOSITORY
from tests.support.processes import is_running

SOON = 20.0


class Story:
    """What the supervisor said, line by line as `name: line`; a test can wait for the next one it hopes for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def say(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")
        self._more.set()

    async def wait(self, part: str, count: int = 1) -> str:
        async with asyncio.timeout(SOON):
            while len(found := [line for line in self.lines if part in line]) < count:
                self._more.clear()
                await self._more.wait()
        return found[count - 1]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
async def children(story: Story, tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(story.say, os.environ, tmp_path)
    yield made
    made.kill()
    await made.stop()


def child(name: str, script: str, **options: object) -> ChildSpec:
    """A child that says `up PID`, then runs the script; by default it waits for a signal, which ends it."""
    start = "import os, signal, sys, time\nprint('up', os.getpid())\n"
    return ChildSpec(name, (sys.executable, "-c", start + script), **options)  # type: ignore[arg-type]


WAITS = "signal.pause()"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\nwhile True: signal.pause()"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\nprint('ready')\nsignal.pause()"


def pid(line: str) -> int:
    return int(line.rpartition(" ")[2])


async def test_lines_are_passed_on_as_they_are_written(children: Supervisor, story: Story, tmp_path: Path) -> None:
    script = "print('one\\ntwo', file=sys.stderr)\nprint(os.getcwd())\nsys.stdout.write('half')"
    assert await children.run(child("a", script)) == 0
    assert story.lines[1:] == ["a: one", "a: two", f"a: {tmp_path}", "a: half"]


async def test_a_line_without_end_does_not_pile_up(children: Supervisor, story: Story) -> None:
    assert await children.run(child("a", "sys.stdout.write('x' * 300_000)")) == 0
    text = [line.removeprefix("a: ") for line in story.lines[1:]]
    assert "".join(text) == "x" * 300_000
    assert max(map(len, text)) <= 2 * supervisor.LINE_BYTES


async def test_a_child_run_once_gives_its_exit_code(children: Supervisor, story: Story) -> None:
    assert await children.run(child("a", "sys.exit(7)")) == 7
    assert await children.run(child("a", "os.kill(os.getpid(), signal.SIGKILL)")) == -signal.SIGKILL
    assert await children.run(ChildSpec("a", ("/no/such/program",))) == 127
    assert "cannot be started" in story.lines[-1]


async def test_a_child_that_ends_is_started_again(children: Supervisor, story: Story) -> None:
    children.start(child("a", WAITS))
    first = pid(await story.wait("a: up"))
    os.kill(first, signal.SIGKILL)
    assert await story.wait("starts again") == "a: ended by SIGKILL, starts again in 0.5 s"
    assert pid(await story.wait("a: up", 2)) != first


async def test_what_a_child_leaves_behind_is_ended_with_it(children: Supervisor, story: Story) -> None:
    leave = "if os.fork() == 0:\n  print('left', os.getpid())\n  signal.pause()\n"
    children.start(child("a", leave + WAITS))
    left = pid(await story.wait("left"))
    os.kill(pid(await story.wait("a: up")), signal.SIGKILL)
    await story.wait("a: up", 2)
    await asyncio.to_thread(wait_until, lambda: not is_running(left), lambda: f"{left} is gone")


async def test_a_ctrl_c_at_the_terminal_does_not_reach_the_children(children: Supervisor, story: Story) -> None:
    children.start(child("a", WAITS))
    assert os.getsid(pid(await story.wait("a: up"))) != os.getsid(0)


async def test_children_are_stopped_stage_by_stage(children: Supervisor, story: Story) -> None:
    for name, stage in [("store", 2), ("web", 0), ("worker", 1)]:
        children.start(child(name, POLITE, stage=stage))
    await story.wait("ready", 3)
    assert await children.stop() is False
    assert [line for line in story.lines if "bye" in line] == ["web: bye", "worker: bye", "store: bye"]
    assert not [line for line in story.lines if "again" in line]


async def test_a_child_that_does_not_stop_in_time_is_killed(children: Supervisor, story: Story) -> None:
    children.start(child("a", STUBBORN, stop_seconds=0.2))
    await story.wait("deaf")
    assert await children.stop() is True
    assert "still there after 0.2 s" in story.lines[-1]
    assert not is_running(pid(story.lines[0]))


async def test_killing_cuts_a_stop_short(children: Supervisor, story: Story) -> None:
    children.start(child("a", STUBBORN, stop_seconds=60))
    children.start(child("b", STUBBORN, stop_seconds=60, stage=1))
    await story.wait("deaf", 2)
    stopping = asyncio.create_task(children.stop())
    await asyncio.sleep(0)
    children.kill()
    async with asyncio.timeout(SOON):
        assert await stopping is True
    assert not [line for line in story.lines if " up " in line and is_running(pid(line))]


async def test_a_child_that_waits_to_start_again_is_not_waited_for(children: Supervisor, story: Story) -> None:
    children.start(child("a", "sys.exit(1)"))
    await story.wait("starts again in 2 s")
    began = time.monotonic()
    await children.stop()
    assert time.monotonic() - began < 1.9


async def test_a_boot_is_given_up_when_a_child_keeps_ending(children: Supervisor, story: Story) -> None:
    children.start(child("good", WAITS))
    children.start(child("bad", "sys.exit('wrong settings')"))
    with pytest.raises(BootFailed, match=r"^bad ended 3 times in a row$"):
        await children.until(never, 60)
    assert "bad: wrong settings" in story.lines


async def test_a_boot_is_given_up_after_its_time(children: Supervisor) -> None:
    with pytest.raises(BootFailed, match=r"not ready after 0\.1 s"):
        await children.until(never, 0.1)


async def never() -> bool:
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_nothing_survives_a_supervisor_that_is_killed() -> None:
    script = f"""if True:
        import asyncio, os, signal, sys
        from pathlib import Path
        from orchestrator.supervisor import ChildSpec, Supervisor
        say = lambda name, line: print(name, line, flush=True)
        term = signal.SIGTERM
        async def main():
            children = Supervisor(say, os.environ, Path.cwd())
            start = "import os, signal, sys\\nprint('up', os.getpid())\\n"
            children.start(ChildSpec("a", (sys.executable, "-c", start + {STUBBORN!r})))
            children.start(ChildSpec("b", (sys.executable, "-c", start + {WAITS!r}), death_signal=term))
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline().decode().strip() for _ in range(3)]
        parent.kill()
    pids = [pid(line) for line in lines if " up " in line]
    assert len(pids) == 2
    wait_until(lambda: not any(map(is_running, pids)), lambda: f"{pids} are gone")
