"""What callers are told when they ask for what is not there or not possible."""

import pytest

from tests.support.stories import engines

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]

TWENTY_MIB = 20 * 1024 * 1024


@pytest.mark.parametrize("unknown", ["0" * 30, "nobody", "%20", "actor%2Fwith%2Fslashes"])
def test_an_unknown_actor_is_not_found(cluster, unknown):
    answer = cluster.api.call(unknown)
    assert (answer.status_code, told(answer)) == (404, ("actor", "not_found"))
    assert answer.headers["x-rivet-ray-id"]


def test_an_actor_is_not_found_once_its_deletion_has_been_answered(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    assert cluster.api.call(actor_id).status_code == 200
    cluster.api.delete_actor(actor_id)
    answer = cluster.api.call(actor_id)
    assert (answer.status_code, told(answer)) == (404, ("actor", "not_found"))
    assert cluster.api.actor(actor_id)["destroy_ts"] is not None
    endpoint.wait("actor_stop", actorId=actor_id)


def test_a_body_up_to_the_limit_passes_and_a_larger_one_is_refused(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    largest = cluster.api.call(actor_id, "/length", "POST", content=bytes(TWENTY_MIB))
    assert (largest.status_code, largest.json()["bytes"]) == (200, TWENTY_MIB)
    answer = cluster.api.call(actor_id, "/length", "POST", content=bytes(TWENTY_MIB + 1))
    assert (answer.status_code, told(answer)) == (413, ("guard", "invalid_request_body"))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"name": 1}', b"\xff"])
def test_a_malformed_creation_is_a_bad_request(cluster, body):
    headers = {"content-type": "application/json"}
    answer = cluster.api.send("POST", "/actors", content=body, headers=headers)
    assert (answer.status_code, told(answer)) == (400, ("api", "bad_request"))


def test_an_unknown_path_is_not_found(cluster):
    answer = cluster.api.send("GET", "/no/such/path")
    assert (answer.status_code, told(answer)) == (404, ("api", "not_found"))


def told(answer):
    """Return the error's group and code."""
    return answer.json()["group"], answer.json()["code"]
