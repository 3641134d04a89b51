"""The token of a request for the API, and what an endpoint asks of it (API §1.3).

An endpoint says `auth=READ`, `CLIENT` or `RUNNER`; one that says nothing is the admin's alone.
"""

from django.http import HttpRequest
from ninja.security import HttpBearer

from orchestrator.access import Bearer, Right
from orchestrator.tokens import authorise


class Token(HttpBearer):
    """Asks for a token that gives one right in the namespace of the request, if tokens are asked for at all."""

    def __init__(self, right: Right) -> None:
        self.right = right
        super().__init__()

    def __call__(self, request: HttpRequest) -> Bearer:
        """Return who asks, or raise Forbidden. The scheme's word is case-sensitive."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return authorise(self.right, request.GET.get("namespace"), token if scheme == "Bearer" else None)

    def authenticate(self, request: HttpRequest, token: str) -> Bearer:
        """Return whose token it is, or raise Forbidden."""
        return authorise(self.right, request.GET.get("namespace"), token)


READ = Token(Right.READ)
CLIENT = Token(Right.CLIENT)
RUNNER = Token(Right.RUNNER)
ADMIN = Token(Right.ADMIN)


def bearer_of(request: HttpRequest) -> Bearer:
    """Return who asks, as the endpoint's `auth` has found."""
    bearer: Bearer = request.auth  # type: ignore[attr-defined]
    return bearer
