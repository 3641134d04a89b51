import pytest

from orchestrator.api.body import MAX_BODY_BYTES, MAX_FORWARDED_BYTES, check_content_type, check_length
from orchestrator.errors import BadRequest, BodyTooLarge


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;x",
        " application/json ",
        "application/vnd.api+json",
        "application/a+b+json",
    ],
)
def test_json_is_accepted_by_any_of_its_names(content_type):
    check_content_type(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "json", "text/json", "text/plain", "application/jsonp", "application/+json", "application/x; +json"],
)
def test_other_content_types_are_a_bad_request(content_type):
    with pytest.raises(BadRequest):
        check_content_type(content_type)


@pytest.mark.parametrize(
    ("length", "error"),
    [
        (MAX_BODY_BYTES + 1, BadRequest),
        (MAX_FORWARDED_BYTES, BadRequest),
        (MAX_FORWARDED_BYTES + 1, BodyTooLarge),
    ],
)
def test_a_body_too_long_is_refused(length, error):
    check_length(MAX_BODY_BYTES)
    with pytest.raises(error) as refused:
        check_length(length)
    assert "length limit" in refused.value.metadata["reason"]
