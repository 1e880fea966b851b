"""What a file is that is not a packet capture, for the error message."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data; decompress it first"),
    (b"\xfd7zXZ\x00", "xz-compressed data; decompress it first"),
    (b"BZh", "bzip2-compressed data; decompress it first"),
    (b"\x04\x22\x4d\x18", "lz4-compressed data; decompress it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "gzip inside gzip; decompress it once"),
    (b"snoop\0\0\0", "a Solaris snoop capture; convert it with editcap -F pcap"),
    (b"GMBU", "a Microsoft Network Monitor capture; convert it with editcap -F pcap"),
    (b"RTSS", "a Microsoft Network Monitor 1 capture; convert it with editcap -F pcap"),
    (b"\x1c\x00\x01\xac", "an IXIA capture; convert it with editcap -F pcap"),
    (b"\x1c\x00\x01\xab", "an IXIA capture; convert it with editcap -F pcap"),
    (b"\x7fELF", "an executable"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3\0", "a SQLite database"),
)


def describe(start: bytes) -> str:
    """Return what the first bytes of a file say about it."""
    for signature, name in _SIGNATURES:
        if start.startswith(signature):
            return name
    try:
        # The last character may be cut.
        text = start[:-3].decode() or start.decode()
    except UnicodeDecodeError:
        return f"data that starts with {start[:8].hex(' ')}"
    if all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return "text"
    return f"data that starts with {start[:8].hex(' ')}"
