"""Runs child processes: starts them, passes on what they say, starts them again, and stops them in order.

Every child leads a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone, and on
Linux the kernel ends it when the supervisor is killed. Knows nothing of Django or of what the children do.
"""

import asyncio
import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
WELL_SECONDS = 10.0  # a child that ran for so long was well, and starts again without a grudge
BOOT_FAILURES = 3  # ends in a row after which a boot is given up
LOOK_SECONDS = 0.05
LAST_WORDS_SECONDS = 1.0
LINE_BYTES = 65_536  # a longer line is passed on in pieces
PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class BootFailed(Exception):
    """The children did not get ready; the message says why."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child process to keep running."""

    name: str
    command: tuple[str, ...]
    stage: int = 0  # children of a lower stage are stopped before those of a higher one
    stop_seconds: float = 10.0  # from SIGTERM to SIGKILL
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when the supervisor is killed


def restart_delay(previous_seconds: float, ran_seconds: float) -> float:
    """Return how many seconds to wait before a child that ended is started again.

    `previous_seconds` is the wait before this life of it, 0 before the first.
    """
    if previous_seconds == 0 or ran_seconds >= WELL_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(previous_seconds * 2, LONGEST_DELAY_SECONDS)


@dataclass(eq=False)
class _Child:
    spec: ChildSpec
    process: asyncio.subprocess.Process | None = None
    failures: int = 0  # in a row
    task: "asyncio.Task[Any] | None" = field(default=None, repr=False)


class Supervisor:
    """The children of this process. `say(name, line)` gets each line that a child writes or that is about it."""

    def __init__(self, say: Callable[[str, str], None], env: Mapping[str, str], directory: Path) -> None:
        self._say = say
        self._env = dict(env) | {"PYTHONUNBUFFERED": "1"}
        self._directory = directory
        self._children: list[_Child] = []
        self._stopping = asyncio.Event()
        self._killed = False

    def start(self, spec: ChildSpec) -> None:
        """Keep this child running from now on."""
        child = _Child(spec)
        self._children.append(child)
        child.task = asyncio.create_task(self._keep_running(child), name=spec.name)

    async def run(self, spec: ChildSpec) -> int:
        """Run this child once and return its exit code, negative if a signal ended it."""
        child = _Child(spec)
        self._children.append(child)
        child.task = task = asyncio.create_task(self._run_once(child), name=spec.name)
        return await asyncio.shield(task)  # when the caller is cancelled, `stop` still finds the child

    async def until(self, ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait until `ready` says so. Raises BootFailed after `seconds`, or when a child keeps ending."""
        deadline = time.monotonic() + seconds
        while not await ready():
            failing = [child.spec.name for child in self._children if child.failures >= BOOT_FAILURES]
            if failing:
                raise BootFailed(f"{' and '.join(failing)} ended {BOOT_FAILURES} times in a row")
            if time.monotonic() >= deadline:
                raise BootFailed(f"not ready after {seconds:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> bool:
        """Stop all children, stage by stage; return whether any had to be killed."""
        self._stopping.set()
        for stage in sorted({child.spec.stage for child in self._children}):
            await asyncio.gather(*(self._stop(child) for child in self._children if child.spec.stage == stage))
        return self._killed

    def kill(self) -> None:
        """Kill all children at once; `stop` then has nothing left to wait for."""
        self._stopping.set()
        self._killed = True
        for child in self._children:
            _kill(child)

    async def _stop(self, child: _Child) -> None:
        assert child.task is not None
        _signal(child, signal.SIGTERM)
        _, pending = await asyncio.wait({child.task}, timeout=child.spec.stop_seconds)
        if pending:
            self._say(child.spec.name, f"still there after {child.spec.stop_seconds:g} s, killed")
            self._killed = True
            _kill(child)
        await asyncio.wait({child.task})

    async def _keep_running(self, child: _Child) -> None:
        delay = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(child)
            if self._stopping.is_set():
                break
            ran = time.monotonic() - began
            child.failures = 1 if ran >= WELL_SECONDS else child.failures + 1
            delay = restart_delay(delay, ran)
            self._say(child.spec.name, f"{_describe(code)}, starts again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_once(self, child: _Child) -> int:
        """Run it to its end and return its exit code.

        It writes to a pipe of ours: asyncio's own would keep us waiting for any grandchild that has it too.
        """
        output, its_output = os.pipe()
        try:
            child.process = await asyncio.create_subprocess_exec(
                *child.spec.command,
                cwd=self._directory,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its_output,
                stderr=its_output,
                start_new_session=True,
                preexec_fn=functools.partial(_die_with, os.getpid(), child.spec.death_signal),
            )
        except OSError as error:
            os.close(output)
            self._say(child.spec.name, f"cannot be started: {error}")
            return 127
        finally:
            os.close(its_output)
        if self._stopping.is_set():  # came while it was being started
            _signal(child, signal.SIGTERM)
        copying = asyncio.create_task(self._pass_on(child.spec.name, output))
        code = await child.process.wait()
        _kill(child)  # what it may have left behind in its session
        child.process = None
        if (await asyncio.wait({copying}, timeout=LAST_WORDS_SECONDS))[1]:
            copying.cancel()  # something that has left the session still holds the pipe
        return code

    async def _pass_on(self, name: str, output: int) -> None:
        async for line in _lines(output):
            self._say(name, line)


async def _lines(descriptor: int) -> AsyncIterator[str]:
    """Yield what is written to the pipe, line by line, and close it at the end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        rest = b""
        while chunk := await reader.read(LINE_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) >= LINE_BYTES:
                whole, rest = [*whole, rest], b""
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")
    finally:
        transport.close()


def _die_with(parent_pid: int, number: signal.Signals) -> None:
    """Ask the kernel, in the child, to send that signal when the parent ends."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent_pid:  # it ended before we asked
            os.kill(os.getpid(), signal.SIGKILL)


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.returncode is None:
        child.process.send_signal(number)


def _kill(child: _Child) -> None:
    """Kill it and everything in its session."""
    if child.process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"
