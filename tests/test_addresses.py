"""Which machines a URL reaches so that others could read what it carries."""

import pytest

from router.addresses import holds_password, is_loopback, readable_hosts


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://engine:8000", ["engine"]),
        ("HTTP://10.0.0.1", ["10.0.0.1"]),
        ("http://127.0.0.1:8000/v1", []),
        ("http://localhost:8000", []),
        ("http://localhost.example.com", ["localhost.example.com"]),
        ("http://127.0.0.1.example.com", ["127.0.0.1.example.com"]),
        ("http://127.0.0.1@engine", ["engine"]),
        ("http://[::1]:8000", []),
        ("http://[2001:db8::1]:8000", ["2001:db8::1"]),
        ("http://0.0.0.0", ["0.0.0.0"]),
        ("https://engine", []),
        ("redis://:secret@far:6379/0", ["far"]),
        ("rediss://:secret@far:6379/0", []),
        ("redis+cluster://u:p@127.0.0.1:1,far:2,[::1]", ["far"]),
        ("redis+sentinel://u:p@far:1,farther:2/name", ["far", "farther"]),
        ("rediss+cluster://u:p@far:1,farther:2", []),
        ("unix:///run/redis.sock", []),
        ("engine:8000", [""]),
    ],
)
def test_hosts_that_are_reached_without_tls(url: str, hosts: list[str]) -> None:
    assert readable_hosts(url) == hosts


def test_passwords_stand_before_the_host_or_in_the_query() -> None:
    held = ["redis://:p@h", "redis://u:p@h", "redis://h?password=p", "http://token@h"]
    assert all(map(holds_password, held))
    assert not any(map(holds_password, ["redis://h", "redis://h?db=1", "http://h/a@b"]))


@pytest.mark.parametrize(
    "host", ["router", "", "::ffff:10.0.0.1", "127.0.0.1.", "0.0.0.0", "10.0.0.1", "localhost.x", "alocalhost"]
)
def test_other_machines_and_names_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "engine.localhost", "127.9.9.9", "::1"])
def test_localhost_and_loopback_addresses_are_this_machine(host: str) -> None:
    assert is_loopback(host) and not readable_hosts(f"http://[{host}]" if ":" in host else f"http://{host}")
