"""Addresses as people write them: accepted, or refused with what to write, and never quoted."""

import pytest

from router.backends.urls import engine_url, origin, proxy_url
from router.errors import SettingsError

SECRET = "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "http://gpu-1:8000",
        "http://gpu-1:8000/",
        "http://gpu-1:8000/v1",
        "http://gpu-1:8000/v1/",
        "http://gpu-1:8000//",
        " http://gpu-1:8000/v1 ",
    ],
)
def test_a_slash_or_v1_at_the_end_makes_no_difference(url: str) -> None:
    assert engine_url(url) == "http://gpu-1:8000"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://gateway.example/v1/account/openai", "https://gateway.example/v1/account/openai"),
        ("HTTP://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://10.0.0.7", "http://10.0.0.7"),
        ("http://my_engine.svc.cluster.local:80/v1", "http://my_engine.svc.cluster.local:80"),
    ],
)
def test_paths_before_it_stay(url: str, base: str) -> None:
    assert engine_url(url) == base


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("gpu-1:8000", "http://"),
        ("localhost", "http://"),
        ("ftp://gpu-1", "http://"),
        ("grpc://gpu-1:8000", "http://"),
        (f"http://user:{SECRET}@gpu-1:8000", "user or password"),
        (f"http://{SECRET}@gpu-1:8000/v1", "user or password"),
        (f"http://gpu-1:8000/v1?key={SECRET}", r"\?"),
        (f"http://gpu-1:8000/v1#{SECRET}", "#"),
        ("http://gpu-1:8000?", r"\?"),
        ("http://gpu-1:8000#", "#"),
        ("http://", "host"),
        ("http://:8000", "host"),
        ("http://gpu-1:port", "port"),
        ("http://gpu-1:0", "port"),
        ("http://gpu-1:99999", "port"),
        ("http://[::1", "host"),
        ("http://gpu 1:8000", "blanks"),
        ("http://gpu-\n1:8000", "blanks"),
        ("http://gpü-1:8000", "ASCII"),
        ("http://gpu-1:8000/v1/chat/completions", "before the method"),
        ("http://gpu-1:8000/v1/completions/", "before the method"),
        ("http://gpu-1:8000/v1/models", "before the method"),
        ("http://gpu;1", "host"),
    ],
)
def test_what_cannot_work_says_what_to_write(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        engine_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["http://proxy:3128", "http://user:pass@proxy:3128/"])
def test_a_proxy_may_have_a_password(url: str) -> None:
    assert proxy_url(url) == url


@pytest.mark.parametrize(
    "url", ["proxy:3128", "https://proxy:3128", "socks5://proxy", "http://proxy/path", "http://p?x"]
)
def test_no_other_kind_of_proxy_is_spoken_to(url: str) -> None:
    with pytest.raises(SettingsError):
        proxy_url(url)


@pytest.mark.parametrize(
    ("location", "place"),
    [
        (f"https://user:{SECRET}@other:8443/v1/chat?key={SECRET}#x", "https://other:8443"),
        ("http://other/", "http://other"),
        ("/elsewhere", ""),
        ("", ""),
        ("javascript:alert(1)", ""),
        ("http://" + "x y", ""),
        ("http://other\r\nSet-Cookie: x", ""),
    ],
)
def test_of_a_redirect_only_the_place_is_repeated(location: str, place: str) -> None:
    assert origin(location) == place
