"""`manage.py timeline ACTOR`: what happened to an actor, as a table, a Mermaid diagram or JSON."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from actors.models import Actor
from actors.timeline import actor_timeline
from orchestrator.pictures import entry_json, mermaid, table


class Command(BaseCommand):
    """Shows every recorded arrow of an actor, and of the runners that served it, in order."""

    help = "Show what happened to an actor, oldest first."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("actor", help="the actor's id")
        parser.add_argument("--last", type=int, metavar="N", help="only the actor's N newest arrows")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--mermaid", action="store_true", help="print the source of a sequence diagram")
        form.add_argument("--json", action="store_true", help="print a list of objects")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the timeline; an unknown actor ends with a message and status 1."""
        actor_id: str = options["actor"]
        entries = actor_timeline(actor_id, last=options["last"])
        if not entries and not Actor.objects.filter(pk=actor_id).exists():
            raise CommandError(f"there is no actor {actor_id!r}, and nothing is recorded of one")
        if options["json"]:
            self.stdout.write(json.dumps([entry_json(entry) for entry in entries], indent=2))
        elif options["mermaid"]:
            self.stdout.write(mermaid(entries), ending="")
        else:
            self._print_table(table(entries))

    def _print_table(self, rows: list[tuple[str, str, str, str, str]]) -> None:
        if not rows:
            self.stdout.write("nothing is recorded yet")
            return
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        for at, passed, way, label, generation in rows:
            line = f"{at}  {passed:>{widths[1]}}  {way:<{widths[2]}}  {label:<{widths[3]}}  {generation}"
            self.stdout.write(line.rstrip())
