"""Processes of another release beside those of this one, as during a rolling restart, and back after a while."""

import asyncio
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

from tests.faults.injection.processes import GROUPS, restart
from tests.faults.injection.site import Action, Hit, Site
from tests.faults.schedule import Fault
from tests.support.child import REPOSITORY, Child

LATER = "tests.faults.later"
OLDEST = 40
"""So many commits back an older release is looked for, the oldest first."""


def _later(group: str) -> Action:
    async def act(site: Site, fault: Fault) -> Hit:
        async def replace(child: Child, lasts: float) -> None:
            python, *rest = child.command
            await _run_as(child, [python, "-m", LATER, *(rest[1:] if rest[0] == "-m" else rest)], child.cwd, lasts)

        return await site.hit(GROUPS[group](site.fleet), fault, replace)

    return act


def _older(group: str) -> Action:
    async def act(site: Site, fault: Fault) -> Hit:
        tree = await asyncio.to_thread(_older_tree, site.fleet.directory)
        if tree is None:
            return []

        async def replace(child: Child, lasts: float) -> None:
            await _run_as(child, child.command, tree, lasts)

        return await site.hit(GROUPS[group](site.fleet), fault, replace)

    return act


async def _run_as(child: Child, command: Sequence[str], cwd: Path, seconds: float) -> None:
    """Restart a process as another one for a while."""
    present = child.command, child.cwd
    child.command, child.cwd = list(command), cwd
    try:
        await restart(child)
        await asyncio.sleep(seconds)
    finally:
        child.command, child.cwd = present
    await restart(child)


@cache
def _older_tree(directory: Path) -> Path | None:
    """Unpack the oldest release of late that has the present migrations and passes over what it does not know.

    That is as old as `later.py`. None without a history.
    """
    present = _migrations("HEAD")
    for commit in reversed(_git("log", f"-{OLDEST}", "--format=%H").split()[1:]):
        if _migrations(commit) == present and _git("ls-tree", commit, "tests/faults/later.py"):
            tree = directory / "older"
            archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True)
            with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
                files.extractall(tree, filter="data")
            print(f"older processes are of {commit[:9]}", file=sys.stderr)
            return tree
    return None


def _migrations(commit: str) -> list[str]:
    return [line for line in _git("ls-tree", "-r", commit).splitlines() if "/migrations/" in line]


def _git(*arguments: str) -> str:
    """Return what git says; nothing where there is no repository."""
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout


_GROUPS = ("web", "worker", "connector", "sweeper")
ACTIONS: dict[str, Action] = {
    **{f"later {group}": _later(group) for group in _GROUPS},
    **{f"older {group}": _older(group) for group in _GROUPS},
}
