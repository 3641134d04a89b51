"""Hints to background consumers: a message on the channel layer that says no more than: look at your rows."""

from channels.layers import get_channel_layer
from redis.client import Pipeline

from orchestrator.channel_layer import PatientLayer
from orchestrator.redis import get_redis


def hint(channel: str, kind: str = "look") -> None:
    """Have one consumer of this channel look at its rows. Many hints that wait are as good as one."""
    pipeline = get_redis().pipeline(transaction=False)
    add(pipeline, channel, kind)
    pipeline.execute()


def add(pipeline: Pipeline, channel: str, kind: str = "look") -> None:
    """Have the pipeline do so."""
    layer = get_channel_layer()
    assert isinstance(layer, PatientLayer), "the settings configure this channel layer"
    layer.leave(pipeline, channel, {"type": kind})
