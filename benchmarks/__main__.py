"""python -m benchmarks: measure this machine's engine and print one table."""

import argparse
import asyncio
import json
import os
import platform
import sys
from contextlib import ExitStack
from typing import Any

import uvloop

from benchmarks import reference
from benchmarks.engine import running
from benchmarks.idle import Idle, measure_idle
from benchmarks.rows import ONLY_OURS, ROWS, USUAL_ROWS, Bench
from benchmarks.sockets import IdleSockets, measure_idle_sockets
from benchmarks.table import Figures, Results, as_json, as_text

SERVERS = ("daphne", "uvicorn")


def main() -> None:
    """Start the engines, measure all rounds, print."""
    options = _options()
    results: Results = {}
    idle: list[Idle | IdleSockets] = []
    with ExitStack() as stack:
        engines = [stack.enter_context(running(s, options.store, options.runner)) for s in options.servers]
        if options.vs is not None:
            engines.append(stack.enter_context(reference.running(options.runner)))
        if options.idle:
            idle += map(measure_idle, engines)
        benches = [Bench.prepare(engine, options.seconds) for engine in engines]
        uvloop.run(_measure(benches, options.rows, options.rounds, results))
        if options.idle:
            idle += [uvloop.run(measure_idle_sockets(one.engine, one.actors[0])) for one in benches if one.is_ours]
    if options.json:
        print(json.dumps(_about(options) | {"rows": as_json(results)}, indent=2))
    else:
        print("  ".join(f"{name} {value}" for name, value in _about(options).items()), end="\n\n")
        print(as_text(results, reference.NAME))
    for one in idle:
        print(one)


async def _measure(benches: list[Bench], rows: list[str], rounds: int, results: Results) -> None:
    """Take the rows in order, the servers one right after the other, so that both see the same machine."""
    for number in range(rounds):
        for row in rows:
            for bench in benches:
                if not bench.is_ours and row in ONLY_OURS:
                    continue
                print(f"round {number + 1}: {row}, {bench.engine.server}", file=sys.stderr)
                try:
                    async with asyncio.timeout(ROW_SECONDS):
                        figures = Figures.of(await ROWS[row](bench))
                except TimeoutError:
                    print(f"left out: not done after {ROW_SECONDS:g} s", file=sys.stderr)
                else:
                    results.setdefault((row, bench.engine.server), []).append(figures)
                await asyncio.sleep(PAUSE_SECONDS)


PAUSE_SECONDS = 0.2
"""Between two rows, so that what the first left behind (acks, arrows) is not counted as the second's."""

ROW_SECONDS = 60.0
"""An engine that has not finished a row after this does without it in that round."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default=os.environ.get("STORE", "sqlite"))
    parser.add_argument("--runner", choices=("sdk", "npm"), help="what hosts the actors: npm beside the reference")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=USUAL_ROWS, metavar="ROW", help=f"{list(ROWS)}"
    )
    parser.add_argument("--vs", choices=(reference.NAME,), default=os.environ.get("VS") or None)
    parser.add_argument("--idle", action="store_true", help="first see what the engines use without any traffic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each warm row lasts")
    parser.add_argument("--json", action="store_true", help="print JSON, with every round")
    options = parser.parse_args()
    options.runner = options.runner or ("npm" if options.vs else "sdk")
    return options


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "store": options.store,
        "runner": options.runner,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
