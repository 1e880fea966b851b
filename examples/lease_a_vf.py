"""Claim a VF for a VM, set its address and rate, and give it back.

Usage: python examples/lease_a_vf.py [NIC [OWNER]]

Without arguments it uses an emulated NIC, which needs neither hardware nor root.
"""

from __future__ import annotations

import sys

from nicoffload import Nic, open_nic
from nicoffload.errors import NicOffloadError, NotSupportedError
from nicoffload.model import RateLimit, VfConfig, format_mac, parse_mac

MAC = parse_mac("02:00:00:00:00:01")
LIMIT = RateLimit(max_tx_bps=102_500_000)


def limit_rate(nic: Nic, vf: int) -> None:
    """Limit what a VF sends, on a NIC that can, and say what came of it."""
    try:
        (report,) = nic.set_rates({vf: LIMIT})
    except NotSupportedError as error:
        print(f"rate: {error.reasons[0]}")
        return
    enforced = report.applied.max_tx_bps if report.applied else None
    # NICs round. `applied` is what the NIC does; `read_back` is what it says, which with some is what was asked for.
    print(f"rate: asked for {LIMIT.max_tx_bps} bit/s, enforced {enforced}; {report.note or 'as asked'}")


def main(name: str = "mock:ixgbe", owner: str = "vm-web") -> int:
    """Lease a VF, use it, release it; return an exit code."""
    try:
        with open_nic(name) as nic:
            lease = nic.lease_vf(owner, ttl_s=3600)
            print(f"VF {lease.vf} of {nic.vf_limit()} is {owner}'s for an hour")
            try:
                (state,) = nic.configure_vfs([VfConfig(vf=lease.vf, mac=MAC)])
                print(f"mac: {'not reported' if state.mac is None else format_mac(state.mac)}")
                limit_rate(nic, lease.vf)
            finally:
                # Had the lease run out, and somebody else the VF by now, this would touch nothing and say so.
                done = nic.release_vf(lease)
                print("released" if done else done.detail)
    except NicOffloadError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
