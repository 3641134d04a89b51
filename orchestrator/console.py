"""What `up` shows: the lines of many processes, each with its name before it, in a colour of its own."""

import contextlib
from itertools import cycle
from typing import Protocol

NAME_WIDTH = 9  # of `connector`, the longest name
COLORS = ("36", "33", "32", "35", "34", "31")  # SGR codes of the foreground


class Output(Protocol):
    """Where the lines go."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> object:
        """Pass it on."""


class Console:
    """Writes lines to `output`. One that has gone away (a closed terminal) no longer shows them; nobody minds."""

    def __init__(self, output: Output, color: bool) -> None:
        self._output = output
        self._color = color
        self._next_color = cycle(COLORS)
        self._colors: dict[str, str] = {}

    def line(self, name: str, line: str) -> None:
        """Show a line of the process called name."""
        prefix = f"{name:<{NAME_WIDTH}} |"
        if self._color:
            if name not in self._colors:
                self._colors[name] = next(self._next_color)
            prefix = f"\x1b[{self._colors[name]}m{prefix}\x1b[0m"
        self._write(f"{prefix} {line}\n")

    def text(self, text: str) -> None:
        """Show a text as it is."""
        self._write(f"\n{text}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._output.write(text)
            self._output.flush()
