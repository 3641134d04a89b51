"""`manage.py actors`: look at actors and move them."""

import base64
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import QuerySet

from actors import services
from actors.lifecycle import CrashPolicy
from actors.models import Actor
from actors.selectors import actor_json, actors_json, choose_actors, find_actor
from orchestrator.namespaces import find_namespace
from orchestrator.verbs import LIMIT, Verbs, add_choice, add_filters, chosen

FILTERS = {
    "name": "of this name",
    "key": "with this key",
    "pool": "of this pool",
    "status": f"in this state: {', '.join(Actor.Status.values)}",
}
COLUMNS = ("actor_id", "name", "key", "runner_name_selector", "status", "generation", "create_ts")
BULK = ("wake", "sleep", "reschedule", "destroy")


class Command(Verbs):
    """Actors of one namespace, by the services that the API and the gateway use."""

    help = "List, show, create, wake, sleep, reschedule and destroy actors; explain one, or tell its timeline."

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""
        if verb in BULK:
            add_choice(parser, "actor", FILTERS)
        elif verb == "list":
            add_filters(parser, FILTERS)
            parser.add_argument("--destroyed", action="store_true", help="those that are destroyed as well")
            parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (default: %(default)s)")
        elif verb == "create":
            parser.add_argument("name")
            parser.add_argument("--pool", required=True, help="whose runners host it")
            parser.add_argument("--key")
            parser.add_argument("--input", type=Path, help="a file with its input; - for what is piped in")
            parser.add_argument(
                "--crash-policy", choices=[policy.value for policy in CrashPolicy], default="sleep"
            )
        else:
            parser.add_argument("actor", help="the actor's id")
        if verb == "timeline":
            parser.add_argument("--mermaid", action="store_true", help="print the source of a sequence diagram")
            parser.add_argument("--last", type=int, metavar="N", help="only the actor's N newest arrows")

    def do_list(self, options: dict[str, Any]) -> None:
        """List actors, newest first."""
        rows = list(self._rows(options, living=not options["destroyed"])[: options["limit"]])
        self.show_list([_shown(row, shown) for row, shown in zip(rows, actors_json(rows), strict=True)], COLUMNS)

    def do_show(self, options: dict[str, Any]) -> None:
        """Show one actor."""
        actor = self._actor(options)
        self.show(_shown(actor, *actors_json([actor])))

    def do_create(self, options: dict[str, Any]) -> None:
        """Create an actor and start it."""
        actor = services.create_actor(
            namespace=find_namespace(options["namespace"]),
            name=options["name"],
            key=options["key"],
            input_base64=_input(options["input"]),
            pool_name=options["pool"],
            crash_policy=CrashPolicy(options["crash_policy"]),
        )
        self.show(_shown(actor, actor_json(actor)))

    def do_wake(self, options: dict[str, Any]) -> None:
        """Wake actors."""
        self._each(
            options, "told to wake", lambda actor: services.wake_actor(actor_id=actor.pk, request="by hand")
        )

    def do_sleep(self, options: dict[str, Any]) -> None:
        """Send actors to sleep."""
        self._each(options, "told to sleep", lambda actor: services.sleep_actor(actor=actor))

    def do_reschedule(self, options: dict[str, Any]) -> None:
        """Start actors afresh, on another runner if need be."""
        self._each(options, "told to start afresh", lambda actor: services.reschedule_actor(actor=actor))

    def do_destroy(self, options: dict[str, Any]) -> None:
        """Destroy actors, for good."""
        self._each(options, "destroyed", lambda actor: services.destroy_actor(actor=actor))

    def do_explain(self, options: dict[str, Any]) -> None:
        """Say why an actor is where it is, and what comes next."""
        call_command("explain", self._actor(options).pk, json=self.as_json, stdout=self.stdout)

    def do_timeline(self, options: dict[str, Any]) -> None:
        """Show what happened to an actor."""
        form = {"mermaid": options["mermaid"], "json": self.as_json, "last": options["last"]}
        call_command("timeline", self._actor(options).pk, stdout=self.stdout, **form)

    def _actor(self, options: dict[str, Any]) -> Actor:
        return find_actor(namespace=find_namespace(options["namespace"]), actor_id=options["actor"].lower())

    def _rows(self, options: dict[str, Any], *, living: bool, ids: list[str] | None = None) -> QuerySet[Actor]:
        status = options["status"]
        if status is not None and status not in Actor.Status.values:
            raise CommandError(f"an actor's state is one of {', '.join(Actor.Status.values)}")
        return choose_actors(
            namespace=find_namespace(options["namespace"]),
            ids=ids,
            name=options["name"],
            key=options["key"],
            pool_name=options["pool"],
            status=status,
            living=living and status != Actor.Status.DESTROYED,
        )

    def _each(self, options: dict[str, Any], done: str, act: Callable[[Actor], None]) -> None:
        ids = chosen(options, FILTERS)
        rows = {row.pk: row for row in self._rows(options, living=ids is None, ids=ids)}
        if unknown := [id_ for id_ in ids or () if id_ not in rows]:
            raise CommandError(f"not in this namespace: {', '.join(unknown)}")
        self.work_through(list(rows), done, lambda id_: act(rows[id_]))


def _shown(actor: Actor, shown: dict[str, Any]) -> dict[str, Any]:
    """Return the actor as the API shows it, and what only the engine's own people are told."""
    ours = {"status": actor.status, "generation": actor.generation, "runner_id": actor.runner_id or None}
    return shown | ours


def _input(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    return base64.b64encode(content).decode()
