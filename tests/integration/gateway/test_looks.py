"""What the gateway reads in the rows: whether a pool's error is a reason to refuse whoever waits."""

from datetime import timedelta

import pytest

from gateway.looks import Call, look_and_wake
from runners.models import RunnerConfig
from tests.support.management import NOON, make_actor, make_pool

pytestmark = pytest.mark.django_db(transaction=True)

BROKEN = {"serverless_http_error": {"status_code": 500, "body": ""}}
AWAY = {"serverless_connection_error": {"message": "refused"}}


@pytest.mark.parametrize(
    ("error", "failures", "refuses"),
    [
        (None, 0, False),
        (BROKEN, 1, True),
        (AWAY, 1, False),  # it may be restarting
        (AWAY, 2, True),
        (BROKEN, 0, False),  # shown until three starts have gone well; the last one has
        (AWAY, 0, False),
    ],
)
def test_a_request_is_refused_for_an_error_that_no_good_start_has_followed(namespace, error, failures, refuses):
    settings = {"kind": RunnerConfig.Kind.SERVERLESS, "url": "http://e", "request_lifespan": timedelta(minutes=5)}
    make_pool(namespace, error=error, failures=failures, **settings)
    actor = make_actor(namespace, status="pending", due_at=NOON)
    [look] = look_and_wake([Call(actor.pk, again=True)])
    assert look.pool_error == (error if refuses else None)
