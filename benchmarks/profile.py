"""python -m benchmarks.profile: where the time of one process goes while one row is measured (py-spy)."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.engine import Engine, running
from benchmarks.rows import ROWS, Bench, Sample
from benchmarks.table import Figures

DIRECTORY = Path(".torpor/profiles")
RATE = 500
"""Samples per second."""
SUFFIXES = {"speedscope": ".speedscope.json", "flamegraph": ".svg", "raw": ".txt"}
ROLES = ("web", "worker", "runner")
BEGIN_SECONDS = 1.0


def main() -> None:
    """Start an engine, measure the row for a while, and write down what the process did meanwhile."""
    options = _options()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    name = "-".join([options.server, options.role, *options.row.replace(",", "").split()])
    output = DIRECTORY / f"{name}{SUFFIXES[options.format]}"
    with running(options.server, options.store, options.runner) as engine:
        bench = Bench.prepare(engine, options.seconds)
        spy = subprocess.Popen(_command(_pid(engine, options.role), options, output), stdout=subprocess.DEVNULL)
        try:
            time.sleep(BEGIN_SECONDS)
            figures = Figures.of(uvloop.run(_measure(bench, options.row)))
            status = spy.wait()
        finally:
            spy.kill()
    if status:
        sys.exit("py-spy has failed; it may need root, or kernel.yama.ptrace_scope=0")
    print(f"{options.row}, {options.server}: {figures.per_second:.0f} per s, with the profiler at work")
    print(f"{output} (speedscope: https://www.speedscope.app, or any viewer of that format)")


async def _measure(bench: Bench, row: str) -> Sample:
    return await ROWS[row](bench)


def _command(pid: int, options: argparse.Namespace, output: Path) -> list[str]:
    spy = Path(sys.executable).with_name("py-spy")
    how = ["--format", options.format, "--rate", str(RATE), "--output", str(output)]
    how += ["--native"] * options.native + (["--idle"] if options.idle else ["--gil"])
    return [str(spy), "record", "--pid", str(pid), "--duration", str(int(BEGIN_SECONDS + options.seconds)), *how]


def _pid(engine: Engine, role: str) -> int:
    return engine.roles[role][-1 if role == "runner" else 0].pid


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument(
        "--row", choices=list(ROWS), default="warm, 64 at a time", metavar="ROW", help=f"{list(ROWS)}"
    )
    parser.add_argument("--role", choices=ROLES, default="web", help="whose profile it is")
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="uvicorn")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--runner", choices=("sdk", "npm"), default="sdk")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a warm row lasts")
    parser.add_argument("--format", choices=list(SUFFIXES), default="speedscope")
    parser.add_argument("--idle", action="store_true", help="threads that wait, too")
    parser.add_argument("--native", action="store_true", help="frames of C extensions, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
