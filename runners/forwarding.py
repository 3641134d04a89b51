"""From a runner's socket to the gateways: its tunnel frames, forwarded as they are (PROTOCOL §5)."""

import asyncio
import contextlib
from dataclasses import replace

from orchestrator.bus import get_bus
from orchestrator.errors import BusOverloaded
from runners import channel, sockets
from runners.delivery import RequestId
from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
from runners.links import Flag, Links, encode_standing
from runners.protocol import codec
from runners.protocol.messages import ToServerResponseAbort, ToServerTunnelMessage

TUNNEL_TAG = 6
"""First byte of a ToServerTunnelMessage, in every version (PROTOCOL §3.1)."""
LARGE_FRAME_BYTES = 20 * 1024 * 1024
"""A tunnel frame this long is decoded here, as its payload may be over the limit."""
ROOM_SECONDS = 0.02
"""While the way to other processes is full, it is tried again this often; the runner is not read meanwhile."""


async def forward(runner_id: str, frame: bytes, version: int, links: Links | None = None) -> None:
    """Hand a tunnel frame to the gateway it names, here or in another process; numbered, if `links` are given.

    Raises:
        TunnelPayloadTooLarge: it carries more than the protocol allows, which costs the connection.
        RunnerProtocolError: it is too short to name a gateway.
    """
    if len(frame) >= LARGE_FRAME_BYTES:
        _check_payload(frame, version)
    ids = codec.tunnel_ids(frame)
    if ids is None:
        raise RunnerProtocolError("tunnel frame without ids")
    gateway = sockets.local_gateway(ids.gateway_id)
    if gateway is not None:
        return gateway(runner_id, frame)
    name = channel.gateway_channel(ids.gateway_id)
    while True:
        message = _numbered(runner_id, ids.gateway_id, frame, links)
        try:
            get_bus().publish(name, channel.encode_from_runner(message))
            return None if links is None else links.sent(ids.gateway_id)
        except BusOverloaded:
            await asyncio.sleep(ROOM_SECONDS)


def tell_unproven(runner_id: str, request: RequestId, *, is_back: bool) -> None:
    """Tell a gateway that the runner may not have had what it sent for a request; a hint, sent once."""
    gateway_id, request_id = request
    _tell(gateway_id, channel.FromRunner(runner_id, channel.encode_unproven(request_id, is_back=is_back)))


def tell_standing(runner_id: str, gateway_id: bytes, links: Links, flags: Flag = Flag.NONE) -> None:
    """Tell a gateway how far this socket has come with it. Should that be lost, the gateway asks again."""
    notice = encode_standing(links.standing(gateway_id, flags))
    _tell(gateway_id, _numbered(runner_id, gateway_id, notice, links))


def _tell(gateway_id: bytes, message: channel.FromRunner) -> None:
    gateway = sockets.local_gateway(gateway_id)
    if gateway is not None:
        return gateway(message.runner_id, message.frame)
    with contextlib.suppress(BusOverloaded):
        get_bus().publish(channel.gateway_channel(gateway_id), channel.encode_from_runner(message))
    return None


def _numbered(runner_id: str, gateway_id: bytes, frame: bytes, links: Links | None) -> channel.FromRunner:
    if links is None:
        return channel.FromRunner(runner_id, frame)
    return channel.FromRunner(runner_id, frame, links.nonce, links.next_number(gateway_id))


async def give_back(runner_id: str, frame: bytes, version: int) -> None:
    """Abort, in the runner's name, what a gateway's frame asks for, as there is no room for it."""
    ids = codec.tunnel_ids_to_client(frame)
    if ids is not None:
        abort = ToServerTunnelMessage(replace(ids, message_index=0), ToServerResponseAbort())
        await forward(runner_id, codec.encode_to_server(abort, version), version)


def _check_payload(frame: bytes, version: int) -> None:
    """Raise TunnelPayloadTooLarge if the frame carries too much; what else is wrong with it the gateway finds."""
    if len(frame) > codec.MAX_FRAME_BYTES:
        raise TunnelPayloadTooLarge(f"tunnel frame of {len(frame)} bytes")
    try:
        codec.decode_to_server(frame, version)
    except TunnelPayloadTooLarge:
        raise
    except RunnerProtocolError:
        return
