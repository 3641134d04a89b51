"""Actors on the pages of pools and runners: tables whose makers a higher house registers."""

from collections.abc import Callable

from django.utils.safestring import SafeString

from runners.models import Runner, RunnerConfig

Table = SafeString | str

_of_pool: list[Callable[[RunnerConfig], Table]] = []
_of_runner: list[Callable[[Runner], Table]] = []


def register(of_pool: Callable[[RunnerConfig], Table], of_runner: Callable[[Runner], Table]) -> None:
    """Have these asked for the actors of a pool and of a runner."""
    _of_pool.append(of_pool)
    _of_runner.append(of_runner)


def of_pool(row: RunnerConfig) -> Table:
    """Return the actors of a pool that wait for a slot or hold one."""
    return next((table(row) for table in _of_pool), "")


def of_runner(row: Runner) -> Table:
    """Return the actors that hold a slot of a runner."""
    return next((table(row) for table in _of_runner), "")
