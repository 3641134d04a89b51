"""`manage.py explain ACTOR`: why it is where it is, and what comes next."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from actors.explain import explain
from actors.models import Actor


class Command(BaseCommand):
    """Prints what is known of one actor's situation."""

    help = "Say why an actor is where it is, what was tried, and what would unblock it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the actor's id, and whether JSON is wanted."""
        parser.add_argument("actor", help="the actor's id")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the explanation, or fail if there is no such actor."""
        actor = Actor.objects.filter(pk=options["actor"]).first()
        if actor is None:
            raise CommandError(f"there is no actor {options['actor']!r}")
        told = explain(actor)
        if options["json"]:
            self.stdout.write(json.dumps(told, indent=2))
        else:
            self._print(told)

    def _print(self, told: dict[str, Any]) -> None:
        self.stdout.write(f"{told['actor_id']} is {told['step']}, since {told['since']}")
        for name in ("generation", "runner_id", "error", "retries", "next_look_at"):
            if told[name] not in (None, 0):
                self.stdout.write(f"  {name}: {told[name]}")
        for runner in told.get("runners", []):
            self.stdout.write(f"  runner {runner['runner_id']}: {runner['refused'] or 'has a free slot'}")
        if pool := told.get("pool"):
            self.stdout.write(f"  pool {pool['name']} ({pool['kind']}): {pool['desired_runners']} runners wanted")
            for start in pool["starts"]:
                outcome = start["error"] or start["status"] or "no answer yet"
                self.stdout.write(f"    GET /start at {start['sent_at']}: {start['state']}, {outcome}")
        if "unblocked_by" in told:
            self.stdout.write(f"  unblocked by: {told['unblocked_by']}")
