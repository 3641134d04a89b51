"""Clocks of running processes, each to be set by itself. `interpreter/sitecustomize.py` is their other end."""

import struct
from pathlib import Path

DIRECTORY = "FAULT_CLOCKS"
INTERPRETER = Path(__file__).with_name("interpreter")
"""To be put on a process's `PYTHONPATH`."""

_OFFSET = struct.Struct("d")


def environment(directory: Path) -> dict[str, str]:
    """Return what a process has to find in its environment so that its clock can be set; makes the directory."""
    directory.mkdir(exist_ok=True)
    return {DIRECTORY: str(directory), "PYTHONPATH": str(INTERPRETER)}


def set_clock(directory: Path, pid: int, seconds: float) -> None:
    """Set a process's clock so many seconds ahead of the machine's, while it runs.

    Raises:
        FileNotFoundError: it has not begun to tell the time yet.
    """
    with (directory / str(pid)).open("r+b") as offset:
        offset.write(_OFFSET.pack(seconds))
