"""`manage.py runners`: look at runners, and send them away."""

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from orchestrator.namespaces import find_namespace
from orchestrator.verbs import LIMIT, Verbs, add_choice, chosen
from runners.models import Runner
from runners.operations import drain_runner, evict_runner
from runners.selectors import list_runners, list_runners_by_id, runner_json

FILTERS = {"pool": "of this pool"}
COLUMNS = ("runner_id", "name", "key", "state", "version", "remaining_slots", "total_slots", "last_ping_ts")
MOST = 100_000


class Command(Verbs):
    """Runners of one namespace."""

    help = "List, show, drain and evict runners."

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""
        if verb == "show":
            parser.add_argument("runner", help="the runner's id")
            return
        if verb == "list":
            parser.add_argument("--pool", help=FILTERS["pool"])
            parser.add_argument("--stopped", action="store_true", help="those that are gone as well")
            parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (default: %(default)s)")
            return
        add_choice(parser, "runner", FILTERS)
        if verb == "drain":
            parser.add_argument("--grace", type=float, metavar="SECONDS", help="instead of the pool's own")

    def do_list(self, options: dict[str, Any]) -> None:
        """List runners, newest first."""
        rows = list_runners(
            namespace=find_namespace(options["namespace"]),
            name=options["pool"],
            include_stopped=options["stopped"],
            limit=options["limit"],
            after=None,
        )
        self.show_list([_shown(row) for row in rows], COLUMNS)

    def do_show(self, options: dict[str, Any]) -> None:
        """Show one runner."""
        [row] = self._rows(options, [options["runner"]])
        self.show(_shown(row))

    def do_drain(self, options: dict[str, Any]) -> None:
        """Give runners no more actors, and evict them when theirs have gone or the grace is over."""
        grace = None if options["grace"] is None else timedelta(seconds=options["grace"])
        self._each(options, "told to drain", lambda row: drain_runner(row, grace))

    def do_evict(self, options: dict[str, Any]) -> None:
        """Close runners' sockets at once; their actors start elsewhere as their crash policy says."""
        self._each(options, "told to go", evict_runner)

    def _each(self, options: dict[str, Any], done: str, act: Callable[[Runner], None]) -> None:
        rows = {row.pk: row for row in self._rows(options, chosen(options, FILTERS))}
        self.work_through(list(rows), done, lambda id_: act(rows[id_]))

    def _rows(self, options: dict[str, Any], ids: list[str] | None) -> list[Runner]:
        namespace = find_namespace(options["namespace"])
        if ids is None:
            return list_runners(
                namespace=namespace, name=options["pool"], include_stopped=False, limit=MOST, after=None
            )
        rows = list_runners_by_id(namespace=namespace, ids=ids, limit=len(ids), after=None)
        if unknown := set(ids) - {row.pk for row in rows}:
            raise CommandError(f"not in this namespace: {', '.join(sorted(unknown))}")
        return rows


def _shown(row: Runner) -> dict[str, Any]:
    return runner_json(row) | {"state": row.state}
