"""Hints to background consumers: a message on the channel layer that says no more than: look at your rows."""

import contextlib

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer


def hint(channel: str, kind: str = "look") -> None:
    """Have one consumer of this channel look at its rows. Many hints that wait are as good as one."""
    layer = get_channel_layer()
    assert layer is not None, "the settings configure a channel layer"
    with contextlib.suppress(ChannelFull):
        async_to_sync(layer.send)(channel, {"type": kind})
