"""The bus between processes: tunnel frames and small messages over Redis pub/sub (DESIGN §2 and §4).

From an event loop: `get_bus()`, one per loop. From a Celery worker: `publish_sync`.
"""

from orchestrator.bus.bus import Bus, Handler
from orchestrator.bus.process import close_bus, get_bus, publish_sync

__all__ = ["Bus", "Handler", "close_bus", "get_bus", "publish_sync"]
