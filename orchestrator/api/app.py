"""The django-ninja object of the management API."""

from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.errors import ValidationError

from orchestrator import VERSION
from orchestrator.api.answers import JsonRenderer, error_answer
from orchestrator.api.token import ADMIN

ROUTERS = (
    "orchestrator.api.system.router",
    "orchestrator.api.namespaces.router",
    "orchestrator.api.tokens.router",
    "actors.api.router",
    "runners.api.router",
)
"""By name, as two of them live in higher houses."""


class ManagementApi(NinjaAPI):
    """Answers in plain `application/json`; every error is translated in one place."""

    def get_content_type(self) -> str:
        """Return the content type of every answer."""
        return "application/json"


def make_api() -> ManagementApi:
    """Return the API with all its routers. The schema is at `/openapi.json`, a page to try it at `/docs`."""
    api = ManagementApi(
        title="Torpor",
        version=VERSION,
        description="Serverless stateful actors: the management API.",
        urls_namespace="api",
        auth=ADMIN,
        renderer=JsonRenderer(),
        docs_decorator=require_safe,
    )
    for kind in (Exception, ValidationError):  # ninja would answer the second by itself
        api.add_exception_handler(kind, error_answer)
    for router in ROUTERS:
        api.add_router("", router)
    return api
