import pytest

from runners.endpoint import problem_with_headers, problem_with_name, problem_with_url


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3000",
        "https://example.com/api/rivet/",
        "http://localhost",
        "HTTP://EXAMPLE.COM",
        "http://[::1]:80/a?b=c",
    ],
)
def test_an_absolute_http_url_can_be_called(url):
    assert problem_with_url(url, private_allowed=True) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "example.com",
        "/relative",
        "//example.com",
        "ftp://example.com",
        "http://",
        "http:///path",
        "http://example.com:99999",
        "http://example.com:port",
        "http://[::1",
        "http://exa mple.com",
        "http://example.com/a\nb",
        "http://:80",
    ],
)
def test_other_urls_cannot(url):
    assert problem_with_url(url, private_allowed=True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-token": ""},
        {"x-token": "a b\tc ~"},
        {"a" * 128: "b" * 4096},
        {f"h{index}": "v" for index in range(16)},
    ],
)
def test_legal_headers_can_be_sent(headers):
    assert problem_with_headers(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"": "v"},
        {"a" * 129: "v"},
        {"a b": "v"},
        {"a:": "v"},
        {"ä": "v"},
        {"a": "b\nc"},
        {"a": "\0"},
        {"a": "ä"},
        {"a": "b" * 4097},
        {f"h{index}": "v" for index in range(17)},
    ],
)
def test_other_headers_cannot(headers):
    assert problem_with_headers(headers)


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://2852039166", "http://[::ffff:a9fe:a9fe]"])
def test_an_address_nobody_may_call_is_known_from_the_url(url):
    assert problem_with_url(url, private_allowed=True)


def test_private_addresses_are_a_matter_of_choice():
    assert problem_with_url("http://10.0.0.1", private_allowed=True) is None
    assert problem_with_url("http://10.0.0.1", private_allowed=False)


@pytest.mark.parametrize("name", ["", "pool", "a/b c", "größe", "x" * 3_000])
def test_a_name_that_fits_into_a_header_can_have_an_endpoint(name):
    assert problem_with_name(name) is None


@pytest.mark.parametrize("name", ["a\nb", "a\r\nx-evil: 1", "a\x00", " a", "a ", "\x7f"])
def test_other_names_cannot(name):
    assert problem_with_name(name)
