"""Three minutes of mixed load with a fault now and then: nothing accumulates. `make soak` has more of them."""

from tests.faults.marks import on_a_fleet
from tests.faults.soak import soak

pytestmark = on_a_fleet(seconds=420)

SECONDS = 180.0
WEBS = ("web0", "web1")
MOST = {
    "rows: live actors": 100,
    "rows: commands": 50,
    "rows: storage accounts": 60,
    "rows: hibernating pairs": 30,
    "rows: leases": 10,
    "rows: living runners": 40,
    "rows: unended /start requests": 30,
    "rows: signals set aside": 0,
    "redis: keys": 200,
    "redis: channels": 100,
    "redis: clients": 120,
} | {f"{web}: {name}": most for web in WEBS for name, most in (("tasks", 150), ("sockets", 150), ("files", 200))}
"""Of what a run makes and lets go of by the hundred, this much may be left at its end."""
GROWTH_MIB = 25.0
"""What a web process may grow by once it is warm: its caches go on filling for a quarter of an hour."""


def test_nothing_accumulates(fleet, record_property):
    outcome, slopes = soak(fleet, SECONDS, seed=3)
    assert list(outcome.violations) == []
    left = {name: slopes[name].last for name in MOST}
    growth = {web: slopes[f"{web}: RSS, MiB"].last - slopes[f"{web}: RSS, MiB"].first for web in WEBS}
    record_property("left", left)
    record_property("growth_mib", growth)
    print("left:", left, "growth, MiB:", growth)
    assert {name: count for name, count in left.items() if count > MOST[name]} == {}
    assert max(growth.values()) < GROWTH_MIB
    assert slopes["rows: actors, destroyed"].last > 2 * MOST["rows: live actors"]
