"""How much a client, an actor and a head may have."""

import pytest

from gateway.errors import ActorBusy, HeadersTooLarge, RateLimited
from gateway.limits import (
    ADDRESSES,
    ActorLimit,
    ClientLimits,
    address_key,
    check_headers,
    client_address,
    parse_networks,
)

TRUSTED = parse_networks("10.0.0.0/8, ::1")


def test_a_head_may_have_so_many_headers_of_such_a_length():
    check_headers([(b"a", b"b")] * 100, 100, 16)
    check_headers([(b"a", b"b" * 15)], 100, 16)
    with pytest.raises(HeadersTooLarge) as refused:
        check_headers([(b"a", b"b")] * 101, 100, 16)
    assert (refused.value.status, refused.value.metadata["limit"]) == (431, 100)
    with pytest.raises(HeadersTooLarge):
        check_headers([(b"a", b"b" * 16)], 100, 16)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("1.1.1.1", [], "1.1.1.1"),
        ("1.1.1.1", [b"2.2.2.2"], "1.1.1.1"),  # not of a proxy we know
        ("10.0.0.1", [b"2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"6.6.6.6, 2.2.2.2"], "2.2.2.2"),  # who wrote the first?
        ("10.0.0.1", [b"6.6.6.6", b"2.2.2.2, 10.1.1.1"], "2.2.2.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [b"2.2.2.2, nonsense"], "10.0.0.1"),
        ("::1", [b"2001:db8::1"], "2001:db8::1"),
        ("", [b"2.2.2.2"], ""),
    ],
)
def test_only_a_trusted_proxy_says_whose_request_it_is(peer, forwarded, address):
    assert client_address(peer, forwarded, TRUSTED) == address


def test_nobody_is_trusted_unasked():
    assert client_address("10.0.0.1", [b"2.2.2.2"], ()) == "10.0.0.1"


def test_addresses_of_one_ipv6_site_count_as_one():
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff") != address_key("2001:db8:0:1::1")
    assert address_key("1.2.3.4") == "1.2.3.4"
    assert address_key("") == ""


def enter(limits, address="a", now=0.0):
    limits.enter(address, now, method="GET", path="/x")


def test_a_rate_is_kept_to_and_recovers_evenly():
    limits = ClientLimits(requests=10, window_seconds=60, at_a_time=0)
    for _ in range(10):
        enter(limits)
    with pytest.raises(RateLimited) as refused:
        enter(limits)
    assert refused.value.metadata == {"method": "GET", "path": "/x", "ip": "a"}
    enter(limits, "b")
    with pytest.raises(RateLimited):
        enter(limits, now=5.9)
    enter(limits, now=6.1)
    with pytest.raises(RateLimited):
        enter(limits, now=6.2)
    for _ in range(10):
        enter(limits, now=1000)
    with pytest.raises(RateLimited):
        enter(limits, now=1000)


def test_so_many_at_a_time_and_a_refused_one_does_not_count():
    limits = ClientLimits(requests=0, window_seconds=60, at_a_time=2)
    enter(limits)
    enter(limits)
    for _ in range(3):
        with pytest.raises(RateLimited):
            enter(limits)
    limits.leave("a")
    enter(limits)
    for _ in range(2):
        limits.leave("a")
    assert not limits._uses


def test_a_flood_of_addresses_does_not_grow_without_end_nor_forget_who_is_here():
    limits = ClientLimits(requests=10, window_seconds=60, at_a_time=0)
    enter(limits, "here")
    for number in range(ADDRESSES + 5_000):
        enter(limits, str(number))
        limits.leave(str(number))
    assert len(limits._uses) <= ADDRESSES + 1
    limits.leave("here")


def test_an_actor_has_so_many_at_a_time():
    limit = ActorLimit("requests")
    limit.enter("a", 2)
    limit.enter("a", 2)
    with pytest.raises(ActorBusy) as refused:
        limit.enter("a", 2)
    assert (refused.value.status, refused.value.metadata["limit"]) == (429, 2)
    limit.enter("b", 2)
    limit.leave("a")
    limit.enter("a", 2)
    for actor_id in ("a", "a", "b"):
        limit.leave(actor_id)
    assert not limit._counts
    for _ in range(5):
        limit.enter("a", 0)
