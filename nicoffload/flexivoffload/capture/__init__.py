"""Packet captures as a stream of `PacketBatch`: pcap and pcapng, plain or gzipped, in bounded memory."""

from __future__ import annotations

from nicoffload.flexivoffload.capture.reader import CaptureReader, SkippedPackets, open_capture

__all__ = ["CaptureReader", "SkippedPackets", "open_capture"]
