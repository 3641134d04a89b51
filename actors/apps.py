"""The Django app of the actors."""

from django.apps import AppConfig

from orchestrator.workflow import sweep
from runners.fence import Fence


class ActorsConfig(AppConfig):
    """Has the actors looked after by the sweep; tells pools how much they need and runners what they have.

    Keeps the storage that runners ask for, and the fence around what actors write by the ORM.
    """

    name = "actors"

    def ready(self) -> None:
        """Register with the sweep and the pools; models can be imported only now."""
        from actors import hosting, queue, readings, storage, storage_erasure as erasure, turn
        from orchestrator import metrics
        from runners import hosted, pools
        from runners.fence import register_fence
        from runners.storage import register_storage

        pools.register_demand(queue.count_demand)
        metrics.register_source(readings.awake_actors)
        hosted.register_hosted(hosting.spoken_lives)
        register_storage(storage.serve)
        register_fence(_load_fence)
        sweep.register(
            sweep.Swept(turn.ACTORS, queue.overdue),
            sweep.Swept(hosting.HOSTING, lambda now, limit: []),
            sweep.Swept(erasure.ERASURE, erasure.overdue),
        )


def _load_fence() -> Fence:
    """Return the fence; it brings the SDK along, which the engine itself does not need."""
    from actors import fencing

    return fencing
