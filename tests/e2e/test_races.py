"""Many processes that make an actor of one key at the same moment: it is one actor, and everybody learns which.

`make races` tells it with 50 processes, 100 times over.
"""

import os

import pytest

from tests.support.racer import Racers
from tests.support.stories import engines

PROCESSES = int(os.environ.get("RACE_PROCESSES", "10"))
ROUNDS = int(os.environ.get("RACE_ROUNDS", "6"))

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]


@pytest.fixture
def racers(cluster):
    with Racers(cluster.urls, PROCESSES) as running:
        yield running


def test_of_many_who_make_one_key_at_once_one_makes_it_and_all_learn_its_id(cluster, racers):
    cluster.api.put_normal_pool("races")
    ever_made = []
    for round_ in range(ROUNDS):
        key = f"key {round_ // 2}"
        if round_ % 2:  # the key is free again
            cluster.api.delete_actor(ever_made[-1])
        body = {"name": "race", "key": key, "runner_name_selector": "races", "crash_policy": "sleep"}
        answers = racers.race(("POST", "PUT"), "/actors?namespace=default", body)
        made = [
            told["actor"]["actor_id"] for _, status, told in answers if status == 200 and told.get("created", True)
        ]
        assert len(made) == 1, answers
        assert made[0] not in ever_made
        ever_made += made
        for method, status, told in answers:
            if status != 200:
                assert (method, status, told["group"], told["code"]) == ("POST", 400, "actor", "duplicate_key")
                assert told["metadata"] == {"existing_actor_id": made[0], "key": key}
            else:
                assert told["actor"]["actor_id"] == made[0]
        assert _ids(cluster, key) == made
        assert _ids(cluster, key, include_destroyed="true") == ever_made[: -2 - round_ % 2 : -1]


def _ids(cluster, key, **more):
    answer = cluster.api.send("GET", "/actors", params={"name": "race", "key": key} | more)
    return [actor["actor_id"] for actor in answer.json()["actors"]]
