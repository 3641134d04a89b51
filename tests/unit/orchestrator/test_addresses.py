"""Which addresses may be called for somebody else."""

from ipaddress import ip_address

import pytest

from orchestrator.addresses import is_loopback, literal_address, refusal


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("fe80::1%25eth0", "fe80::1"),
        ("::ffff:169.254.169.254", "::ffff:a9fe:a9fe"),
    ],
)
def test_an_address_is_known_in_every_spelling(host, address):
    assert literal_address(host) == ip_address(address)


@pytest.mark.parametrize(
    "host", ["", "localhost", "example.com", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 x", "١٢٧.0.0.1"]
)
def test_a_name_is_no_address(host):
    assert literal_address(host) is None


NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "2001:0:4136:e378:8000:63bf:5601:5601",  # Teredo of 169.254.169.254
]
OUR_OWN = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:0a00:0001::",
]
ANYBODYS = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_called(address):
    for private_allowed in (True, False):
        assert refusal(ip_address(address), private_allowed=private_allowed)


@pytest.mark.parametrize("address", OUR_OWN)
def test_private_ones_are_called_if_that_is_allowed(address):
    assert refusal(ip_address(address), private_allowed=True) is None
    assert refusal(ip_address(address), private_allowed=False)


@pytest.mark.parametrize("address", ANYBODYS)
def test_public_ones_are_called(address):
    assert refusal(ip_address(address), private_allowed=False) is None


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_loopback_is_what_this_machine_alone_reaches(host, ours):
    assert is_loopback(host) is ours
