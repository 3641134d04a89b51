"""Hints to background consumers: a message on the channel layer that says no more than: look at your rows."""

import contextlib

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer


def hint(channel: str) -> None:
    """Have one consumer of this channel look at its rows. Many hints that wait are as good as one."""
    with contextlib.suppress(ChannelFull):
        async_to_sync(get_channel_layer().send)(channel, {"type": "look"})
