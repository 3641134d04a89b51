"""python -m tests.faults SEED …: run seeds one after the other, each on a fleet of its own; print the table.

With `--recovery` the faults are apart, and what is measured of one has no part of another.
"""

import argparse
import asyncio
import os
import pickle
import sys
import tempfile
from pathlib import Path

import django

from tests.faults import report
from tests.faults.schedule import KINDS
from tests.support.cluster import Server


def main() -> int:
    """Run the seeds; return 1 if an invariant was violated."""
    options = _options()
    os.environ |= {"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "TORPOR_SECRET_KEY": "a key for tests alone"}
    django.setup()
    from tests.faults.fleet import Fleet  # once Django is ready
    from tests.faults.run import Outcome, run, run_apart

    if options.rolling:
        return _roll(options.rolling, options.server)
    outcomes: list[Outcome] = []
    for seed in options.seeds:
        directory = Path(tempfile.mkdtemp(prefix=f"torpor-faults-{seed}-"))
        with Fleet(directory, options.server) as fleet:
            if options.recovery:
                outcome = run_apart(fleet, seed, options.recovery, options.kinds)
            else:
                outcome = run(fleet, seed, options.faults, options.seconds, options.kinds)
        outcomes.append(outcome)
        (directory / "history.pickle").write_bytes(pickle.dumps(outcome.history))
        print(f"{outcome}; logs in {directory}")
        for violation in outcome.violations:
            print(f"  {violation}")
        for line in report.slowest(outcome.history) if options.recovery else ():
            print(f"  {line}")
    table = report.as_markdown(
        report.add(report.tabulate(one.history, len(one.violations)) for one in outcomes), list(KINDS)
    )
    print(table)
    if options.markdown is not None:
        options.markdown.write_text("".join(f"- {one}\n" for one in outcomes) + f"\n{table}\n")
    return int(any(one.violations for one in outcomes))


def _roll(rate: float, server: Server) -> int:
    """Restart everything once under load; return 1 if a request failed."""
    from tests.faults.fleet import Fleet
    from tests.faults.rolling import roll

    directory = Path(tempfile.mkdtemp(prefix="torpor-rolling-"))
    with Fleet(directory, server) as fleet:
        rolled = asyncio.run(roll(fleet, rate))
    print(f"{server}: {rolled}; logs in {directory}")
    failed = [one for one in rolled.history.operations if one.outcome != "ok"]
    for one in failed:
        print(f"  {one}")
    for socket in rolled.history.sockets:
        print(f"  a socket heard {len(socket.heard)} of {socket.sent}; {socket.code} {socket.reason!r}")
    return int(bool(failed))


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description="Break an engine, and check that it keeps its promises.")
    options.add_argument("seeds", type=int, nargs="*", default=[1])
    options.add_argument("--faults", type=int, default=20)
    options.add_argument("--seconds", type=float, default=100.0)
    options.add_argument("--recovery", type=int, metavar="ROUNDS", help="each kind so often, one fault at a time")
    options.add_argument(
        "--rolling",
        type=float,
        metavar="RATE",
        help="no faults: restart everything under so many requests a second",
    )
    options.add_argument("--kinds", type=_kinds, default=(), help="separated by commas; without it, all there are")
    options.add_argument("--markdown", type=Path, help="a file for what was found, as documentation shows it")
    options.add_argument("--server", choices=("daphne", "uvicorn"), default="uvicorn")
    return options.parse_args()


def _kinds(names: str) -> list[str]:
    kinds = [name.strip() for name in names.split(",")]
    if unknown := set(kinds) - KINDS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
