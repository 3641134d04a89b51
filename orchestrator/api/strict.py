"""Parameters and bodies, read to the letter of API §1.1, where django-ninja is kinder.

An endpoint takes `query: FromQuery[Model]` and `body: FromBody[Model]`; the models are pydantic's, their fields
of the types below. Whatever does not fit raises BadRequest.
"""

import re
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

from django.http import HttpRequest
from ninja.params.models import Body, BodyModel, Query, QueryModel
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from orchestrator.api.body import MAX_BODY_BYTES, check_content_type, check_length
from orchestrator.errors import BadRequest
from orchestrator.ids import is_id
from orchestrator.paging import MAX_LIMIT
from orchestrator.strict_json import parse_object

T = TypeVar("T")

_UNSIGNED = re.compile(r"[0-9]{1,20}")
_U64_MAX = 2**64 - 1


class StrictBody(BaseModel):
    """A request body: exact types, and no field that is not declared."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Nothing(StrictBody):
    """The empty object, which a body without fields still has to be."""


class _QueryModel(QueryModel):
    @classmethod
    def get_request_data(cls, request: HttpRequest, api: Any, path_params: dict[str, Any]) -> dict[str, Any]:
        [field] = cls.model_fields.values()
        model: Any = field.annotation
        return _read_query(request, model)


class _BodyModel(BodyModel):
    @classmethod
    def get_request_data(cls, request: HttpRequest, api: Any, path_params: dict[str, Any]) -> dict[str, Any]:
        [name] = cls.model_fields
        return {name: _read_body(request)}


class _StrictQuery(Query):  # type: ignore[misc]
    _model = _QueryModel

    @classmethod
    def _param_source(cls) -> str:
        return "query"


class _StrictBody(Body):  # type: ignore[misc]
    _model = _BodyModel

    @classmethod
    def _param_source(cls) -> str:
        return "body"


FromQuery = Annotated[T, _StrictQuery(...)]
FromBody = Annotated[T, _StrictBody(...)]

_REPEATABLE = "repeatable"


def _read_query(request: HttpRequest, model: type[BaseModel]) -> dict[str, Any]:
    """Return the query as values of the model's fields; an empty value of an optional one counts as absent."""
    values: dict[str, Any] = {}
    for name, given in request.GET.lists():
        field = model.model_fields.get(name)
        if field is None:
            raise BadRequest(reason=f"unknown parameter: {name}")
        if _REPEATABLE in field.metadata:
            values[name] = given
            continue
        if len(given) > 1:
            raise BadRequest(reason=f"parameter given twice: {name}")
        if given[0] or field.is_required():
            values[name] = given[0]
    return values


def _read_body(request: HttpRequest) -> dict[str, Any]:
    check_content_type(request.META.get("CONTENT_TYPE", ""))
    declared = request.META.get("CONTENT_LENGTH") or "0"
    check_length(int(declared) if _UNSIGNED.fullmatch(declared) else 0)
    body = request.read(MAX_BODY_BYTES + 1)
    check_length(len(body))
    try:
        return parse_object(body)
    except ValueError as error:
        raise BadRequest(reason=f"the body must be a JSON object: {error}") from None


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return value


def _decoded(value: str) -> str:
    try:
        return _text(unquote(value, errors="strict"))
    except UnicodeDecodeError:
        raise ValueError("is not percent-encoded UTF-8") from None


def _id(value: str) -> str:
    value = value.lower()
    if not is_id(value):
        raise ValueError("is not an id")
    return value


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _whole(value: str) -> int:
    if not _UNSIGNED.fullmatch(value) or int(value) > _U64_MAX:
        raise ValueError("must be an unsigned integer")
    return int(value)


def _limit(value: str) -> int:
    return min(_whole(value), MAX_LIMIT)


def _entries(value: str) -> list[str]:
    return [entry for part in value.split(",") if (entry := part.strip())]


Text = Annotated[str, AfterValidator(_text)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Whole = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"type": "integer", "minimum": 0})]
Limit = Annotated[int, BeforeValidator(_limit), WithJsonSchema({"type": "integer", "minimum": 0})]
_AN_ID = WithJsonSchema({"type": "string", "pattern": "^[0-9a-zA-Z]{30}$"})
Id = Annotated[str, AfterValidator(_id), _AN_ID]
PathText = Annotated[str, AfterValidator(_decoded)]
PathId = Annotated[str, AfterValidator(_decoded), AfterValidator(_id), _AN_ID]
Repeated = Annotated[list[T], _REPEATABLE]
CommaSeparated = Annotated[list[T], BeforeValidator(_entries), WithJsonSchema({"type": "string"})]


class StrictQuery(BaseModel):
    """Query parameters; others are refused."""

    model_config = ConfigDict(extra="forbid")


class InNamespace(StrictQuery):
    """The parameter of everything that belongs to a namespace: its name."""

    namespace: Text


class Paged(StrictQuery):
    """The parameters of every list."""

    limit: Limit = 100
    cursor: Text | None = None
