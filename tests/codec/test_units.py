"""Rates and sizes as people write them."""

from __future__ import annotations

import pytest

from nicoffload.codec import format_rate, parse_rate, parse_size
from nicoffload.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("100M", 100_000_000),
        ("1.5Gbit", 1_500_000_000),
        ("2500kbps", 2_500_000),
        ("2500 kbit/s", 2_500_000),
        ("64K", 64_000),
        ("1T", 10**12),
        ("1000000", 1_000_000),
        ("0", 0),
        ("none", None),
        (" None ", None),
    ],
)
def test_a_rate(text, rate_bps):
    assert parse_rate(text) == rate_bps


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("-1", "not negative"),
        ("100MB", "bits, not bytes"),
        ("100MBps", "bits, not bytes: write 800M"),
        ("12.5MBps", "bits, not bytes: write 100M"),
        ("100m", "k, M, G or T"),
        ("fast", "100M"),
        ("", "100M"),
        ("1,5G", "100M"),
        ("٣M", "100M"),
    ],
)
def test_no_rate(text, hint):
    with pytest.raises(InvalidRequestError) as caught:
        parse_rate(text, "--max")
    assert caught.value.path == "--max"
    assert hint in caught.value.hint


def test_a_rate_is_a_whole_number_of_bits():
    with pytest.raises(InvalidRequestError, match="whole number of bits per second"):
        parse_rate("0.0001k")


@pytest.mark.parametrize(
    ("rate_bps", "text"), [(None, "none"), (0, "0"), (1_500_000, "1500k"), (10**9, "1G"), (7, "7")]
)
def test_the_shortest_text(rate_bps, text):
    assert format_rate(rate_bps) == text


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64k", 64_000), ("64KiB", 65536), ("1.5kB", 1500)]
)
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64kbit", "-1", "1.00001k", "9" * 30])
def test_no_size(text):
    with pytest.raises(InvalidRequestError):
        parse_size(text)
