"""`manage.py namespaces`: make and list namespaces."""

from argparse import ArgumentParser
from typing import Any

from orchestrator import namespaces
from orchestrator.verbs import LIMIT, Verbs

COLUMNS = ("namespace_id", "name", "display_name", "create_ts")


class Command(Verbs):
    """Namespaces; there is no way to change or remove one."""

    help = "List and create namespaces."
    in_namespace = False

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""
        if verb == "create":
            parser.add_argument("name", help="letters a to z, digits and single hyphens")
            parser.add_argument("--display-name", help="what people call it (default: its name)")
        else:
            parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (default: %(default)s)")

    def do_list(self, options: dict[str, Any]) -> None:
        """List namespaces, oldest first."""
        rows = namespaces.list_namespaces(options["limit"], after=None)
        self.show_list([namespaces.namespace_json(row) for row in rows], COLUMNS)

    def do_create(self, options: dict[str, Any]) -> None:
        """Create a namespace."""
        name = options["name"]
        row = namespaces.create_namespace(name=name, display_name=options["display_name"] or name)
        self.show(namespaces.namespace_json(row))
