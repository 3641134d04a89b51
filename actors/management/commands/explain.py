"""`manage.py explain ACTOR`: why it is where it is, and what comes next."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from actors.explain import explain, in_words
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
            self.stdout.write("\n".join(in_words(told)))
