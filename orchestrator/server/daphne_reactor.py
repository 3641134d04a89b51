"""Twisted's reactor, on an event loop of ours: uvloop if it is installed.

Importing this module replaces the reactor that `daphne` among Django's apps installed at start; nothing may have
used that one yet. Every other module of ours takes the reactor from here.
"""

import asyncio
import importlib.util
import sys
from typing import Any

from twisted.internet import asyncioreactor

if importlib.util.find_spec("uvloop"):
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()

sys.modules.pop("twisted.internet.reactor", None)
asyncioreactor.install(loop)  # type: ignore[no-untyped-call]
reactor: Any = sys.modules["twisted.internet.reactor"]
reactor.seconds = loop.time  # its own time is the machine's, which may be set while calls wait for theirs
