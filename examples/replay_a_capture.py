"""Replay a capture on several emulated NICs with one policy, and compare what each could take off the host.

Usage: python examples/replay_a_capture.py CAPTURE POLICY [NIC ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from nicoffload import open_nic
from nicoffload.flexivoffload.policy import load_policy
from nicoffload.flexivoffload.session import replay_capture

NICS = ("mock:sfn5122f", "mock:ixgbe", "mock:i40e", "mock:mlx5")


def main(arguments: list[str]) -> int:
    """Print one line a NIC."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    capture, policy = arguments[0], load_policy(Path(arguments[1]))
    for name in arguments[2:] or NICS:
        with open_nic(name) as nic:
            report = replay_capture(capture, nic, policy)
        print(
            f"{name:<16} {100 * report.share_bytes:5.1f} % of the bytes offloaded, "
            f"{report.operations.adds:,} rules added, "
            f"{report.cpu.with_offload_core_s:.3f} of {report.cpu.without_offload_core_s:.3f} core seconds"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
