"""The django-ninja object of the management API."""

from typing import Any

from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.errors import ValidationError
from ninja.openapi.schema import OpenAPISchema

from orchestrator import VERSION
from orchestrator.api.answers import JsonRenderer, error_answer
from orchestrator.api.schemas import Refusal
from orchestrator.api.token import ADMIN

ROUTERS = (
    "orchestrator.api.system.router",
    "orchestrator.api.namespaces.router",
    "orchestrator.api.tokens.router",
    "actors.api.router",
    "runners.api.router",
)
"""By name, as two of them live in higher houses."""


REFUSALS = {
    400: "Refused: `group` and `code` say why.",
    403: "The token is missing, wrong, or not for this.",
    413: "The body is too large.",
    500: "The engine failed.",
}


class ManagementApi(NinjaAPI):
    """Answers in plain `application/json`; every error is translated in one place."""

    def get_content_type(self) -> str:
        """Return the content type of every answer."""
        return "application/json"

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        """Return the description of the API, with the refusals that every endpoint has in common."""
        schema = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        schema["components"]["schemas"]["Refusal"] = Refusal.model_json_schema()
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
        for operations in schema["paths"].values():
            for operation in operations.values():
                refusals = {status: {"description": why, "content": content} for status, why in REFUSALS.items()}
                operation["responses"] = refusals | operation["responses"]
        return schema


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
