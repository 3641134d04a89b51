"""Which actor a query-backed path asks for, and what it must not ask."""

import base64

import pytest

from gateway.errors import GatewayError
from gateway.query import ActorQuery, Creation, is_query_backed, parse, serialise_key

GET = "rvt-namespace=ns&rvt-method=get"
CREATE = "rvt-namespace=ns&rvt-method=getOrCreate"
INPUT = base64.urlsafe_b64encode(b"\xa1\x61\x61\xfb" + b"\xff" * 8).decode().rstrip("=")


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ("", "/"),
        ("a", "a"),
        ("a,b", "a/b"),
        ("a/b,,c/d", r"a\/b/\0/c\/d"),
        ("\\", "\\\\"),
        (",", r"\0/\0"),
        ("\\0", r"\\0"),
        ("é,日", "é/日"),
    ],
)
def test_a_key_is_serialised(parts, key):
    assert serialise_key(parts) == key


@pytest.mark.parametrize(
    ("segment", "query", "expected"),
    [
        ("name", GET, ActorQuery("ns", "name", "/")),
        ("a%20b%2Fc", f"{GET}&rvt-key=x+y%2Cz", ActorQuery("ns", "a b/c", "x y/z")),
        ("name", f"{GET}&rvt-pool=ignored", ActorQuery("ns", "name", "/")),
        ("name", f"{CREATE}&rvt-pool=p", ActorQuery("ns", "name", "/", Creation("p"))),
        ("name", f"{CREATE}&rvt-runner=p&rvt-key=", ActorQuery("ns", "name", "/", Creation("p"))),
        (
            "name",
            f"{CREATE}&rvt-pool=p&rvt-region=r&rvt-crash-policy=restart&rvt-input={INPUT}",
            ActorQuery(
                "ns",
                "name",
                "/",
                Creation("p", base64.urlsafe_b64decode(INPUT + "=" * (-len(INPUT) % 4)), "r", "restart"),
            ),
        ),
    ],
)
def test_a_query_says_which_actor_is_meant(segment, query, expected):
    assert parse(segment, query).query == expected


def test_what_is_not_ours_is_kept_byte_for_byte_and_in_order():
    parsed = parse("n", "b=%zz&rvt-namespace=ns&&a=+&rvt-method=get&b&rvt-token=t%20t&c=%20")
    assert parsed.rest == "b=%zz&&a=+&b&c=%20"
    assert parsed.token == "t t"


@pytest.mark.parametrize(
    ("segment", "query", "code"),
    [
        ("name", "rvt-method=get", "query_invalid_params"),
        ("name", "rvt-namespace=&rvt-method=get", "query_invalid_params"),
        ("name", "rvt-namespace=ns", "query_invalid_params"),
        ("name", "rvt-namespace=ns&rvt-method=create", "query_invalid_params"),
        ("name", f"{GET}&rvt-color=red", "query_invalid_params"),
        ("name", f"{GET}&rvt-=x", "query_invalid_params"),
        ("name", f"{GET}&rvt-skip-ready-wait=yes", "query_invalid_params"),
        ("name", f"{GET}&rvt-key=%00", "query_invalid_params"),
        ("%00", GET, "query_invalid_params"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-crash-policy=panic", "query_invalid_params"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-runner=p", "query_invalid_params"),
        ("name", f"{GET}&rvt-key=a&rvt-key=a", "query_duplicate_param"),
        ("name", f"{GET}&rvt-key=%zz", "query_invalid_percent_encoding"),
        ("name", f"{GET}&rvt-key=%ff", "query_invalid_percent_encoding"),
        ("%f", GET, "query_invalid_percent_encoding"),
        ("name@token", GET, "query_path_token_syntax"),
        ("name", f"{GET}&rvt-runner=p", "query_get_disallowed_params"),
        ("name", f"{GET}&rvt-input={INPUT}", "query_get_disallowed_params"),
        ("name", f"{GET}&rvt-region=r", "query_get_disallowed_params"),
        ("name", f"{GET}&rvt-crash-policy=sleep", "query_get_disallowed_params"),
        ("name", CREATE, "query_missing_pool"),
        ("name", f"{CREATE}&rvt-pool=", "query_missing_pool"),
        ("", GET, "query_empty_actor_name"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-input=a+b", "query_invalid_base64_input"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-input=9g==", "query_invalid_base64_input"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-input=a", "query_invalid_base64_input"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-input=9vY", "query_invalid_cbor_input"),
        ("name", f"{CREATE}&rvt-pool=p&rvt-input=", "query_invalid_cbor_input"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_code(segment, query, code):
    with pytest.raises(GatewayError) as refused:
        parse(segment, query)
    assert (refused.value.group, refused.value.code, refused.value.status) == ("guard", code, 400)


def test_only_parameters_of_ours_make_a_path_query_backed():
    assert is_query_backed("a=1&rvt-key=a")
    assert is_query_backed("rvt-key")
    for query in ("", "a=rvt-key", "xrvt-key=1", "rvt-skip-ready-wait=1", "RVT-key=1"):
        assert not is_query_backed(query)
