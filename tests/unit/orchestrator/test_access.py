"""Rights, scopes and tickets."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.access import (
    ADMIN,
    Bearer,
    Right,
    Scope,
    check,
    digest,
    read_ticket,
    rights_of,
    sign_ticket,
)
from orchestrator.errors import Forbidden

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY = b"key"
ID = "a" * 30


@pytest.mark.parametrize(
    ("scopes", "rights"),
    [
        ([], set()),
        (["read"], {"read"}),
        (["client"], {"read", "client"}),
        (["runner"], {"read", "runner"}),
        (["runner", "client"], {"read", "runner", "client"}),
        (["admin", "unheard-of"], set()),
    ],
)
def test_scopes_add_up_and_none_makes_an_admin(scopes, rights):
    assert rights_of(scopes) == rights


@pytest.mark.parametrize("right", Right)
def test_the_admin_may_do_everything_everywhere(right):
    for namespace in ("mine", "", None):
        assert check(ADMIN, right, namespace) is ADMIN
    assert ADMIN.belongs_to(ID)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("right", Right)
def test_a_namespaces_token_gives_its_rights_there_alone(scope, right):
    bearer = Bearer(rights_of([scope]), ID, "mine")
    for namespace in ("mine", None):
        assert bearer.may(right, namespace) is (right in rights_of([scope]))
    for namespace in ("other", "", ID):
        assert not bearer.may(right, namespace)
    assert bearer.belongs_to(ID)
    assert not bearer.belongs_to("b" * 30)


def test_nobody_is_refused():
    with pytest.raises(Forbidden):
        check(None, Right.READ, None)


def test_a_ticket_is_for_runners_and_the_actors_they_host():
    ticket = sign_ticket(KEY, namespace_id=ID, namespace="mine", expires_at=NOON)
    assert read_ticket(KEY, ticket, NOON - timedelta(seconds=1)) == Bearer(
        frozenset({Right.READ, Right.CLIENT, Right.RUNNER}), ID, "mine"
    )
    assert set(ticket) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def test_a_ticket_expires():
    ticket = sign_ticket(KEY, namespace_id=ID, namespace="mine", expires_at=NOON)
    assert read_ticket(KEY, ticket, NOON) is None


@pytest.mark.parametrize(
    "forge",
    [
        lambda ticket: ticket.replace("mine", "other"),
        lambda ticket: ticket.replace(ID, "b" * 30),
        lambda ticket: ticket.replace(str(int(NOON.timestamp())), str(int(NOON.timestamp()) + 1)),
        lambda ticket: ticket[:-1],
        lambda ticket: ticket + "0",
        lambda ticket: ticket.rpartition(".")[0],
        lambda ticket: "x" + ticket,
        lambda _: "",
        lambda _: "ticket.....",
        lambda _: "ticket.ä",
    ],
    ids=["namespace", "id", "time", "shorter", "longer", "unsigned", "prefixed", "empty", "dots", "unicode"],
)
def test_a_forged_ticket_is_none(forge):
    ticket = sign_ticket(KEY, namespace_id=ID, namespace="mine", expires_at=NOON)
    assert read_ticket(KEY, forge(ticket), NOON - timedelta(hours=1)) is None
    assert read_ticket(b"another key", ticket, NOON - timedelta(hours=1)) is None


def test_a_digest_tells_nothing_of_the_token():
    assert digest("secret") != digest("secret2")
    assert "secret" not in digest("secret")
