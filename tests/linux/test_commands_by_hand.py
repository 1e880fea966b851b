"""The commands that are shown for rules, run by hand, tell the kernel what we tell it, byte by byte or as it has it."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest

from nicoffload import load_registry
from nicoffload.codec import parse_rule
from nicoffload.driver import Driver, Placement, RuleRef
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NETLINK_ROUTE, NetlinkChannel
from nicoffload.kernel.tc import Hook, U32Filters
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from tests.fuzz.seeds import split
from tests.kernel import ethtool_spy
from tests.kernel.against_tc import run_commands, shown_lines

PF = "enp3s0f0"
ADDRESS = "0000:03:00.0"
_NUMBERS = 40
ACKNOWLEDGE = 4
INSERT, DELETE = 0x32, 0x31
NEW_QDISC, NEW_FILTER, DELETE_FILTER = 36, 44, 45
NTUPLE = (
    ("tcp4", "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=443 actions=vf:1"),
    ("tcp4", "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.6,tp_dst=80 actions=queue:3"),
    ("udp4", "udp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=53 actions=drop"),
)
# Two behind one pair of addresses, and one behind another; not every kernel has the action of a drop.
U32 = (
    ("tcp4", "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=443 actions=vf:1"),
    ("tcp4", "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=80 actions=vf:0"),
    ("udp4", "udp,nw_src=10.0.0.1,nw_dst=10.0.0.6,tp_dst=53 actions=vf:1"),
)


def plugged() -> tuple[FakeKernel, Driver]:
    """Return a fake kernel with an ixgbe that has two VFs, and what drives it."""
    kernel = FakeKernel()
    for number in range(_NUMBERS):  # which a namespace of this machine may have taken
        kernel.add_netdev(f"other{number}")
    registry = load_registry(kernel=kernel)
    kernel.plug(
        registry.profiles.get("ixgbe"), pci_address=ADDRESS, ifname=PF, config=Config(prepared=True, vfs=2)
    )
    return kernel, registry.open(ADDRESS)


def placed(table: str, rules: tuple[tuple[str, str], ...]) -> list[Placement]:
    return [
        Placement(rule=parse_rule(text), table=table, flow_type=flow_type, slot=slot)
        for slot, (flow_type, text) in enumerate(rules, 1)
    ]


def installed(driver: Driver, placements: list[Placement]) -> list[RuleRef]:
    """Install rules and return where they are."""
    assert driver.flow_filters is not None
    made = driver.flow_filters.create_many(placements)
    assert all(isinstance(one, RuleRef) for one in made), made
    return list(made)


def removed(driver: Driver, refs: list[RuleRef]) -> None:
    assert driver.flow_filters is not None
    assert list(driver.flow_filters.destroy_many(refs)) == [None] * len(refs)


@pytest.mark.skipif(bool(ethtool_spy.missing), reason=ethtool_spy.missing)
def test_ethtool_says_by_hand_what_we_say():
    """Of a rule, all but the bytes that ethtool leaves to chance."""
    (ours, driver), (theirs, _) = plugged(), plugged()

    def by_hand(commands):
        for command in commands:
            ethtool_spy.spy(shlex.split(command), lambda asked: theirs.ethtool(PF, asked))

    placements = placed("fdir", NTUPLE)
    commands = [line for placement in placements for line in driver.equivalents(placement)]
    assert [line.split()[:3] for line in commands] == [["ethtool", "-N", PF]] * len(NTUPLE)
    refs = installed(driver, placements)
    by_hand(commands)
    assert said(ours, INSERT) == said(theirs, INSERT)
    assert len(said(ours, INSERT)) == len(NTUPLE)
    commands = [line for words in driver.equivalents_of_removal(refs) for line in words]
    removed(driver, refs)
    by_hand(commands)
    assert [location for *_, location in said(ours, DELETE)] == [1, 2, 3]
    assert [one[-1] for one in said(ours, DELETE)] == [one[-1] for one in said(theirs, DELETE)]


def said(kernel: FakeKernel, command: int) -> list[tuple[bytes, int]]:
    """Return what was said of rules by a command: the rule, without the bytes of no use, and its location."""
    return [
        (one.data[16:176], struct.unpack_from("=I", one.data, 176)[0])
        for one in kernel.requests
        if one.kind == "ethtool" and struct.unpack_from("=I", one.data)[0] == command
    ]


# ----------------------------------------------------------------------------------- u32, on this machine's kernel


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces, each with devices that are named and numbered as the fake kernel's."""
    names = [f"nicoffload-{os.getpid()}-{number}" for number in range(2)]
    made = []
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
                pytest.skip("no network namespaces here")
            made.append(name)
            for ifindex, device in enumerate((PF, f"{PF}v0", f"{PF}v1"), _NUMBERS + 2):
                line = f"ip -n {name} link add {device} index {ifindex} type veth peer name peer{ifindex}"
                subprocess.run(line.split(), check=True, capture_output=True)
        yield [f"/run/netns/{name}" for name in names]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)


@pytest.mark.root
def test_tc_makes_by_hand_of_u32_rules_what_we_make(namespaces, tmp_path):
    """The fake kernel's NIC is driven, and what it was sent is sent to a real one."""
    fake, driver = plugged()
    native = LinuxKernel()
    placements = placed("u32", U32)
    commands = [line for placement in placements for line in driver.equivalents(placement)]
    assert commands[0] == f"tc qdisc add dev {PF} clsact"
    assert sum(" divisor " in line for line in commands) == 2
    refs = installed(driver, placements)
    states = []
    for place, make in zip(
        namespaces, (lambda: replayed(fake, native), lambda: run_commands(commands, tmp_path)), strict=True
    ):
        with native.namespace(place):
            make()
            states.append(state(native))
    assert states[0] == states[1]
    assert len(states[0][1]) == len(U32) + 2
    # And back: half of them, then the rest, with the tables that nothing is left in.
    for going in (refs[:1], refs[1:]):
        lines = [line for words in driver.equivalents_of_removal(going) for line in words]
        fake.requests.clear()
        removed(driver, going)
        states = []
        for place in namespaces:
            with native.namespace(place) as inside:
                if place == namespaces[0]:
                    replayed(fake, inside)
                else:
                    for line in lines:
                        until_let_go(lambda words=line: tc_error(words))
                states.append(state(inside))
        assert states[0] == states[1]
    assert states[0][1] == set()


def replayed(fake: FakeKernel, native: LinuxKernel) -> None:
    """Send a kernel what a fake one was sent that changes filters."""
    channel = native.open_netlink(NETLINK_ROUTE)
    for one in fake.requests:
        if one.kind == "netlink" and one.target == str(NETLINK_ROUTE):
            for message in split(one.data):
                kind, flags = struct.unpack_from("=HH", message, 4)
                if kind in {NEW_QDISC, NEW_FILTER, DELETE_FILTER}:
                    asking = message[:6] + struct.pack("=H", flags | ACKNOWLEDGE) + message[8:]
                    until_let_go(lambda data=asking: error(channel, data))
    channel.close()


def error(channel: NetlinkChannel, data: bytes) -> int:
    channel.send(data)
    kind, number = struct.unpack_from("=Hxxxxxxxxxxi", channel.receive(5), 4)
    assert kind == 2
    return -int(number)


def tc_error(line: str) -> int:
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
    assert not done.returncode or "in-use" in done.stderr, (line, done.stderr)
    return errno.EBUSY if done.returncode else 0


def until_let_go(call: Callable[[], int]) -> None:
    """Make a call again while a table is in use: it is until a grace period after its link went is over."""
    for _ in range(100_000):
        number = call()
        if number != errno.EBUSY:
            break
    assert number == 0


def state(kernel: LinuxKernel) -> tuple[list[str], set[object]]:
    """Return the filters as tc shows them and as we read them."""
    with U32Filters(kernel, Hook.ingress(socket.if_nametoindex(PF))) as filters:
        return shown_lines(PF), {(one.ref, one.item) for one in filters.dump()}
