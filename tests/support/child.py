"""One child process: started, frozen, killed and started again by name; its output in a file."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1  # prctl(2)
STOP_SECONDS = 15.0

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process that never outlives this one. Its stdout and stderr are appended to `log`."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.cwd = REPOSITORY
        self.env = dict(os.environ) | dict(env or {}) | {"PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {'pid ' + str(self.pid) if self.alive else 'not running'}>"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start the process; returns at once."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        try:
            self._end(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask_to_end(self) -> None:
        """Ask it to end, and do not wait for it."""
        os.kill(self.pid, signal.SIGTERM)

    def restart(self) -> None:
        """Start it again, ending it first if it still runs."""
        if self.alive:
            self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does; nothing is closed."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def rss_bytes(self) -> int:
        """Return how much memory it has, and measure the most it has from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak_rss_bytes(self) -> int:
        """Return the most memory it has had since `rss_bytes` was asked."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        [kibibytes] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
        return int(kibibytes) * 1024

    def output(self, offset: int = 0) -> str:
        """Return what it has written so far, from a byte offset on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as output:
            output.seek(offset)
            return output.read().decode(errors="replace")

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self.alive:
            self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)
