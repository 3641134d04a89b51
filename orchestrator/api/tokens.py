"""Tokens of a namespace: made, listed and revoked by the admin."""

from datetime import timedelta
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, Field

from orchestrator import clock, tokens
from orchestrator.access import Scope
from orchestrator.api.schemas import Done, Pagination, pagination
from orchestrator.api.strict import FromBody, FromQuery, InNamespace, Paged, PathId, StrictBody
from orchestrator.namespaces import find_namespace
from orchestrator.paging import Position
from orchestrator.tokens import token_json

LONGEST_SECONDS = 100 * 365 * 24 * 3600

router = Router(tags=["tokens"])


class TokenAnswer(BaseModel):
    """A token, without the token itself."""

    token_id: str
    namespace_id: str
    name: str
    scopes: list[Scope]
    create_ts: int
    expire_ts: int | None
    revoke_ts: int | None


class NewToken(BaseModel):
    """The token that was made. `secret` is told this once."""

    token: TokenAnswer
    secret: str


class Tokens(BaseModel):
    """A page of tokens, newest first."""

    tokens: list[TokenAnswer]
    pagination: Pagination


class TokenBody(StrictBody):
    """What a new token is for, and after how many seconds it expires; null: never."""

    name: str = ""
    scopes: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": list(Scope)}, "minItems": 1})
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] | None = None


class TokensQuery(Paged, InNamespace):
    """Tokens of a namespace, revoked ones too."""


@router.post("/tokens", response=NewToken, operation_id="tokens_create")
def create_token(request: HttpRequest, query: FromQuery[InNamespace], body: FromBody[TokenBody]) -> dict[str, Any]:
    """Create a token for a namespace. Its secret is in this answer and nowhere else."""
    row, secret = tokens.create_token(
        namespace=find_namespace(query.namespace),
        label=body.name,
        scopes=body.scopes,
        expires_at=None if body.expires_in is None else clock.now() + timedelta(seconds=body.expires_in),
    )
    return {"token": token_json(row), "secret": secret}


@router.get("/tokens", response=Tokens, operation_id="tokens_list")
def list_tokens(request: HttpRequest, query: FromQuery[TokensQuery]) -> dict[str, Any]:
    """List the tokens of a namespace, newest first."""
    after = Position.newest_first(query.cursor) if query.cursor is not None else None
    rows = tokens.list_tokens(namespace=find_namespace(query.namespace), limit=query.limit, after=after)
    return {"tokens": [token_json(row) for row in rows], "pagination": pagination(rows)}


@router.delete("/tokens/{token_id}", response=Done, operation_id="tokens_revoke")
def revoke_token(request: HttpRequest, token_id: PathId, query: FromQuery[InNamespace]) -> dict[str, Any]:
    """Revoke a token. It stays in the list."""
    namespace = find_namespace(query.namespace)
    tokens.revoke_token(tokens.find_token(namespace=namespace, token_id=token_id))
    return {}
