"""A client process that calls when it is told to: a line `METHOD PATH BODY` in, a line `STATUS BODY` out.

`Racers` are many of them, each a process of its own, told at the same moment.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

SECONDS = 60.0
TOKEN = "-"


def main(address: str, token: str) -> None:
    """Call over one connection until there are no more lines."""
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
    connection.connect()
    print("ready", flush=True)
    for line in sys.stdin:
        method, path, body = line.rstrip("\n").split(" ", 2)
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        print(answer.status, answer.read().decode(), flush=True)


class Racers:
    """`count` processes, each connected to one of the web processes in turn."""

    def __init__(self, urls: Sequence[str], count: int) -> None:
        addresses = [urlsplit(urls[index % len(urls)]).netloc for index in range(count)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-S", __file__, address, TOKEN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for address in addresses
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            assert self._line(process) == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with process:
                process.kill()

    def race(self, methods: Sequence[str], path: str, body: dict[str, Any]) -> list[tuple[str, int, Any]]:
        """Have all call at once, the methods in turn; return each one's method, status and answer."""
        chosen = [methods[index % len(methods)] for index in range(len(self._processes))]
        for process, method in zip(self._processes, chosen, strict=True):
            assert process.stdin is not None
            process.stdin.write(f"{method} {path} {json.dumps(body)}\n")
            process.stdin.flush()
        answers = [self._line(process).partition(" ") for process in self._processes]
        return [
            (method, int(status), json.loads(text))
            for method, (status, _, text) in zip(chosen, answers, strict=True)
        ]

    @staticmethod
    def _line(process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        return process.stdout.readline().rstrip("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
