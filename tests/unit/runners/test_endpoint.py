import pytest

from runners.endpoint import problem_with_headers, problem_with_url


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
    assert problem_with_url(url) is None


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
    assert problem_with_url(url)


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
