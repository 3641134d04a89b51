"""`manage.py tokens`: make, list and revoke the tokens of a namespace."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings

from orchestrator import clock, tokens
from orchestrator.access import Scope
from orchestrator.namespaces import find_namespace
from orchestrator.verbs import LIMIT, Verbs

COLUMNS = ("token_id", "name", "scopes", "create_ts", "expire_ts", "revoke_ts")


class Command(Verbs):
    """Tokens of one namespace."""

    help = "List, create and revoke the tokens of a namespace."

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""
        if verb == "create":
            parser.add_argument("name", nargs="?", default="", help="what people call it")
            scopes = [scope.value for scope in Scope]
            parser.add_argument("--scope", action="append", choices=scopes, required=True, help="may be repeated")
            parser.add_argument("--days", type=float, help="it expires after so many; else never")
        elif verb == "revoke":
            parser.add_argument("token", nargs="+", help="ids of tokens")
        else:
            parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (default: %(default)s)")

    def do_list(self, options: dict[str, Any]) -> None:
        """List tokens, newest first."""
        namespace = find_namespace(options["namespace"])
        rows = tokens.list_tokens(namespace=namespace, limit=options["limit"], after=None)
        self.show_list([tokens.token_json(row) for row in rows], COLUMNS)

    def do_create(self, options: dict[str, Any]) -> None:
        """Create a token and print it, this once."""
        days = options["days"]
        row, secret = tokens.create_token(
            namespace=find_namespace(options["namespace"]),
            label=options["name"],
            scopes=options["scope"],
            expires_at=None if days is None else clock.now() + timedelta(days=days),
        )
        self.show(tokens.token_json(row) | {"secret": secret})
        if not settings.ENV.auth_required:
            self.stderr.write("no token is asked for yet: set TORPOR_ADMIN_TOKEN, or TORPOR_AUTH=required")

    def do_revoke(self, options: dict[str, Any]) -> None:
        """Revoke tokens, for good."""
        namespace = find_namespace(options["namespace"])
        rows = {id_: tokens.find_token(namespace=namespace, token_id=id_) for id_ in options["token"]}
        self.work_through(list(rows), "revoked", lambda id_: tokens.revoke_token(rows[id_]))
