"""What runners can do, remembered: the row is read once in a while, and only for what needs it."""

import time
from collections import OrderedDict

from orchestrator.db import run_db
from runners.features import Features, read_features
from runners.models import Runner

REMEMBERED = 10_000
REMEMBERED_SECONDS = 60.0

_known: OrderedDict[str, tuple[float, Features]] = OrderedDict()


async def features_of(runner_id: str) -> Features:
    """Return the features of a runner. Nothing a plain request and its plain answer need."""
    now = time.monotonic()
    known = _known.get(runner_id)
    if known is not None and now - known[0] < REMEMBERED_SECONDS:
        return known[1]
    features = read_features(await run_db(_metadata, runner_id))
    _known[runner_id] = now, features
    if len(_known) > REMEMBERED:
        _known.popitem(last=False)
    return features


def _metadata(runner_id: str) -> object:
    return Runner.objects.filter(pk=runner_id).values_list("metadata", flat=True).first()
