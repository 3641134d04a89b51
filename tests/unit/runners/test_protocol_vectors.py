"""The bytes other implementations write (PROTOCOL §10) are ours, both ways."""

import base64

import pytest

from runners.protocol import codec
from runners.protocol.messages import ToServerlessServerInit
from tests.unit.runners import protocol_vectors

VECTORS = protocol_vectors.load()
CODECS = {
    "ToServer": (codec.decode_to_server, codec.encode_to_server),
    "ToClient": (codec.decode_to_client, codec.encode_to_client),
}
SOCKET = [vector for vector in VECTORS if vector.kind in CODECS]
SERVERLESS = [vector for vector in VECTORS if vector.kind == "ToServerlessServer"]


def named(vectors):
    return [pytest.param(vector, id=vector.id) for vector in vectors]


def test_every_vector_of_the_protocol_is_here():
    count = {version: sum(vector.version == version for vector in VECTORS) for version in codec.VERSIONS}
    assert count == {7: 52, 6: 3, 5: 4, 4: 11}
    assert len(SOCKET) + len(SERVERLESS) == len(VECTORS)


@pytest.mark.parametrize("vector", named(SOCKET))
def test_a_vector_is_decoded_to_its_message(vector):
    decode, _ = CODECS[vector.kind]
    assert decode(vector.frame, vector.version) == vector.message


@pytest.mark.parametrize("vector", named(SOCKET))
def test_a_message_is_encoded_to_its_vector(vector):
    _, encode = CODECS[vector.kind]
    assert encode(vector.message, vector.version) == vector.frame


@pytest.mark.parametrize("vector", named(SERVERLESS))
def test_a_serverless_vector_holds_behind_the_prefix_of_its_version(vector):
    payload = bytes([vector.version, 0]) + vector.frame
    assert codec.decode_serverless_init(payload) == vector.message
    assert codec.encode_serverless_init(vector.message) == payload


@pytest.mark.parametrize(("version", "text"), [(7, "BwAABHJ1bjEHAA=="), (5, "BQAABHJ1bjEFAA==")])
def test_a_serverless_payload_is_base64_of_the_prefixed_init(version, text):
    message = ToServerlessServerInit("run1", version)
    assert base64.b64encode(codec.encode_serverless_init(message)).decode() == text
    assert codec.decode_serverless_init(base64.b64decode(text)) == message
