"""The admin token (API §1.3)."""

import hmac

from django.conf import settings
from django.http import HttpRequest
from ninja.security import HttpBearer

from orchestrator.errors import Forbidden


class AdminToken(HttpBearer):
    """Asks for the admin token if one is configured; without one everything is open."""

    def __call__(self, request: HttpRequest) -> bool:
        """Return True, or raise Forbidden. The scheme's word is case-sensitive."""
        expected = settings.ENV.admin_token
        if not expected:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Forbidden(reason="Token not provided")
        return self.authenticate(request, token)

    def authenticate(self, request: HttpRequest, token: str) -> bool:
        """Compare in constant time."""
        if not hmac.compare_digest(token.encode(), settings.ENV.admin_token.encode()):
            raise Forbidden(reason="Invalid token")
        return True
