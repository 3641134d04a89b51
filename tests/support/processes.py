"""Ports and processes of the machine, for tests. `child.Child` starts one process, safely."""

import os
import socket
from pathlib import Path


def free_port() -> int:
    """Return a loopback port nobody listens on; whoever needs it should take it soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_running(pid: int) -> bool:
    """Say whether there is such a process, ended ones that nobody has waited for aside."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
