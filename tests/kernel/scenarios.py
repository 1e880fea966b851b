"""What a user may do to a NIC, step by step, on whatever kernel it is given; the answers are written down.

The fake kernel and the real ones run the same scenarios. Their answers must be the same, word by word: values, errnos
and the kernel's own texts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nicoffload.errors import NicOffloadError, errno_name
from nicoffload.kernel import genetlink
from nicoffload.kernel.binding import Binding
from nicoffload.kernel.bridge import HwMode, set_hwmode
from nicoffload.kernel.devlink import (
    Devlink,
    EncapMode,
    EswitchMode,
    FunctionState,
    Handle,
    InlineMode,
    PortFlavour,
    RateChange,
    RateLeaf,
    RateNode,
)
from nicoffload.kernel.events import BusEvent, DevlinkEvent, Events, LinkEvent, Topic
from nicoffload.kernel.features import FeatureName, read_feature, set_feature
from nicoffload.kernel.link import set_up
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.ntuple import FlowType, NtupleRule
from nicoffload.kernel.ntuple_layout import encode_request, encode_rule
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.representors import identify, representors
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_ROUTE, Kernel
from nicoffload.kernel.sriov import Sriov
from nicoffload.kernel.tc import Gact, Hook, Placing, TcFilter, TcFilters, Verdict, qdisc
from nicoffload.kernel.tc.qdisc import IngressQdisc
from nicoffload.kernel.tc.values import FilterRef, FilterState
from nicoffload.kernel.vf import VfLink, VfRequest
from nicoffload.model import Drop, LinkState, Match, RateLimit, VfConfig, VlanTag
from tests.kernel.random_filters import random_filters
from tests.kernel.random_vfs import random_requests

MBPS = 1_000_000
MAC = 0x02_00_00_00_00_01


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The NIC that a scenario is about.

    Args:
        kernel: Whose it is.
        bus: ``pci`` or ``netdevsim``.
        name: Its name on the bus.
    """

    kernel: Kernel
    bus: str
    name: str

    @property
    def folder(self) -> str:
        """Its folder in sysfs."""
        return f"bus/{self.bus}/devices/{self.name}"

    @property
    def handle(self) -> Handle:
        """What devlink calls it."""
        return Handle(bus=self.bus, name=self.name)

    @property
    def ifname(self) -> str:
        """The first of its network devices, by number."""
        names = self.kernel.list_sysfs(f"{self.folder}/net")
        return min(names, key=self.ifindex)

    def ifindex(self, ifname: str = "") -> int:
        """Return the number of a network device; of its first one for none."""
        return int(self.kernel.read_sysfs(f"class/net/{ifname or self.ifname}/ifindex"))


@dataclass(slots=True)
class Transcript:
    """What was done, and what the kernel answered: a line a step."""

    lines: list[str] = field(default_factory=list)

    def do(self, what: str, call: Callable[[], object]) -> None:
        """Do something, and write down what came of it."""
        self.lines.append(f"{what}: {answer(call)}")


def answer(call: Callable[[], object]) -> str:
    """Return what a call returns, or how it was refused: class, errno, the kernel's words."""
    try:
        return shown(call())
    except NicOffloadError as refused:
        words = f" {refused.kernel_message!r}" if refused.kernel_message else ""
        return f"{type(refused).__name__} {errno_name(refused.errno or 0)}{words}"
    except OSError as refused:
        return f"refused {errno_name(refused.errno or 0)}"


def shown(value: object) -> str:
    """Return a value as one line."""
    if value is None:
        return "done"
    if isinstance(value, bytes):
        return value.decode().strip()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return "[" + ", ".join(shown(one) for one in value) + "]"
    return str(value)


def write(subject: Subject, file: str, text: str) -> Callable[[], None]:
    """Return a call that writes a file of the NIC."""
    return lambda: subject.kernel.write_sysfs(f"{subject.folder}/{file}", text.encode())


def read(subject: Subject, path: str) -> Callable[[], bytes]:
    """Return a call that reads a file of sysfs."""
    return lambda: subject.kernel.read_sysfs(path)


# Simulated NIC --------------------------------------------------------------------------------------------------------


def simulated_sysfs(subject: Subject, log: Transcript) -> None:
    """The number of VFs, and what sysfs says of the network devices."""
    kernel = subject.kernel
    log.do("VFs at first", read(subject, f"{subject.folder}/sriov_numvfs"))
    for text in ("-1", "two", "", "5", "0x2", "2", "2\n", "3", "4294967296"):
        log.do(f"write {text!r}", write(subject, "sriov_numvfs", text))
    log.do("VFs", read(subject, f"{subject.folder}/sriov_numvfs"))
    log.do("no total", read(subject, f"{subject.folder}/sriov_totalvfs"))
    log.do("port name", read(subject, f"class/net/{subject.ifname}/phys_port_name"))
    log.do("port id", read(subject, f"class/net/{subject.ifname}/phys_port_id"))
    log.do("no port name", read(subject, "class/net/lo/phys_port_name"))
    log.do("no switch", read(subject, "class/net/lo/phys_switch_id"))
    log.do(
        "device",
        lambda: (
            kernel.readlink_sysfs(f"class/net/{subject.ifname}/device").rpartition("/")[2] == subject.name
        ),
    )
    log.do("not a link", lambda: kernel.readlink_sysfs(f"class/net/{subject.ifname}/ifindex"))
    log.do("not a folder", lambda: kernel.list_sysfs(f"class/net/{subject.ifname}/ifindex"))
    log.do("not a file", read(subject, f"class/net/{subject.ifname}"))
    log.do("nothing below a file", read(subject, f"class/net/{subject.ifname}/ifindex/x"))
    log.do("read only", lambda: kernel.write_sysfs(f"class/net/{subject.ifname}/ifindex", b"1"))
    log.do("role", lambda: identify(kernel, subject.ifname).role)
    for up in (False, True):
        for file in ("carrier", "speed"):
            log.do(f"{file}, up {up}", read(subject, f"class/net/{subject.ifname}/{file}"))
        set_up(kernel, subject.ifindex())
    log.do("speed of the loopback", read(subject, "class/net/lo/speed"))
    log.do("state of the loopback", read(subject, "class/net/lo/operstate"))
    log.do("write '0'", write(subject, "sriov_numvfs", "0"))


def simulated_devlink(subject: Subject, log: Transcript) -> None:
    """The device, its switch and its ports."""
    kernel, handle = subject.kernel, subject.handle
    with Devlink(kernel) as devlink:
        log.do("known", lambda: handle in devlink.devices())
        log.do("driver", lambda: devlink.info(handle).driver)
        log.do("absent", lambda: devlink.info(Handle(bus="netdevsim", name="netdevsim999")))
        log.do("other bus", lambda: devlink.eswitch(Handle(bus="usb", name=handle.name)))
        log.do("mode", lambda: devlink.eswitch(handle).mode)
        write(subject, "sriov_numvfs", "2")()
        log.do("ports in legacy", lambda: ports(devlink, subject))
        for mode in (EswitchMode.LEGACY, EswitchMode.SWITCHDEV, EswitchMode.SWITCHDEV):
            log.do(f"set {mode.value}", lambda mode=mode: devlink.set_eswitch(handle, mode=mode))
        log.do("mode", lambda: devlink.eswitch(handle).mode)
        log.do("inline", lambda: devlink.set_eswitch(handle, inline_mode=InlineMode.NETWORK))
        log.do("encap", lambda: devlink.set_eswitch(handle, encap_mode=EncapMode.BASIC))
        log.do("ports in switchdev", lambda: ports(devlink, subject))
        log.do("no port", lambda: devlink.port(handle, 99))
        log.do("set no port", lambda: devlink.set_function(handle, 99, hw_addr=MAC))
        vf = next(one for one in devlink.ports(handle) if one.flavour is PortFlavour.PCI_VF)
        log.do("address", lambda: devlink.set_function(handle, vf.index, hw_addr=MAC))
        log.do("state", lambda: devlink.set_function(handle, vf.index, state=FunctionState.ACTIVE))
        switch = kernel.read_sysfs(f"class/net/{subject.ifname}/phys_switch_id").decode().strip()
        log.do("port names", lambda: [one.port_name for one in representors(kernel, switch)])
        log.do("roles", lambda: [one.role for one in representors(kernel, switch)])
        log.do("back", lambda: devlink.set_eswitch(handle, mode=EswitchMode.LEGACY))
        log.do("ports in legacy", lambda: ports(devlink, subject))
    write(subject, "sriov_numvfs", "0")()


def ports(devlink: Devlink, subject: Subject) -> list[str]:
    """Return what is told of each port, but for names and numbers that differ from kernel to kernel."""
    return [
        f"{port.index} {port.flavour.value} number {port.number} controller {port.controller} pf {port.pf} vf {port.vf}"
        f" external {port.external} function {port.function} device {bool(port.ifindex)}"
        for port in devlink.ports(subject.handle)
    ]


def simulated_rates(subject: Subject, log: Transcript) -> None:
    """Leaves, nodes and parents, right and wrong."""
    handle = subject.handle
    with Devlink(subject.kernel) as devlink:

        def tell() -> list[str]:
            return sorted(
                f"{rate.ref} share {rate.tx_share_bps} max {rate.tx_max_bps} in {rate.parent!r}"
                for rate in devlink.rates(handle)
            )

        def set_rate(ref: RateLeaf | RateNode, **change: object) -> Callable[[], None]:
            return lambda: devlink.set_rate(handle, ref, RateChange(**change))

        upper, lower, leaf = RateNode(name="upper"), RateNode(name="lower"), RateLeaf(port=128)
        write(subject, "sriov_numvfs", "2")()
        log.do("legacy", tell)
        log.do("leaf in legacy", set_rate(leaf, tx_max_bps=MBPS))
        log.do("node in legacy", lambda: devlink.create_node(handle, upper))
        devlink.set_eswitch(handle, mode=EswitchMode.SWITCHDEV)
        log.do("switchdev", tell)
        for value in (MBPS, 5000 * MBPS, 5001 * MBPS, MBPS + 8, 0, 3 * MBPS):
            log.do(f"max {value}", set_rate(leaf, tx_max_bps=value))
        log.do("share above max", set_rate(leaf, tx_share_bps=4 * MBPS))
        log.do("share right, max wrong", set_rate(leaf, tx_share_bps=2 * MBPS, tx_max_bps=8))
        log.do("after that", tell)
        log.do("priority", set_rate(leaf, tx_priority=1))
        log.do("weight", set_rate(leaf, tx_weight=1))
        log.do("no such leaf", set_rate(RateLeaf(port=999), tx_max_bps=MBPS))
        log.do("the PF's port", set_rate(RateLeaf(port=0), tx_max_bps=MBPS))
        log.do("no such node", set_rate(upper, tx_max_bps=MBPS))
        log.do("no such parent", set_rate(leaf, parent="upper"))
        log.do("no parent to leave", set_rate(leaf, parent=""))
        log.do("node", lambda: devlink.create_node(handle, upper, RateChange(tx_max_bps=9 * MBPS)))
        log.do("again", lambda: devlink.create_node(handle, upper))
        log.do("node with a wrong rate", lambda: devlink.create_node(handle, lower, RateChange(tx_max_bps=8)))
        log.do("node with a parent", lambda: devlink.create_node(handle, lower, RateChange(parent="upper")))
        log.do("itself", set_rate(upper, parent="upper"))
        log.do("a loop", set_rate(upper, parent="lower"))
        log.do("leaf in node", set_rate(leaf, parent="lower"))
        log.do("tree", tell)
        log.do("delete with children", lambda: devlink.delete_node(handle, lower))
        log.do("mode with nodes", lambda: devlink.set_eswitch(handle, mode=EswitchMode.LEGACY))
        log.do("same mode with nodes", lambda: devlink.set_eswitch(handle, mode=EswitchMode.SWITCHDEV))
        log.do("leaf out", set_rate(leaf, parent=""))
        log.do("lower gone", lambda: devlink.delete_node(handle, lower))
        log.do("upper gone", lambda: devlink.delete_node(handle, upper))
        log.do("upper gone again", lambda: devlink.delete_node(handle, upper))
        log.do("left", tell)
        devlink.set_eswitch(handle, mode=EswitchMode.LEGACY)
    write(subject, "sriov_numvfs", "0")()


def simulated_features(subject: Subject, log: Transcript) -> None:
    """Features, and a receive classifier that there is not."""
    kernel, ifname = subject.kernel, subject.ifname
    for name in FeatureName:
        log.do(name.value, lambda name=name: feature(kernel, ifname, name))
    for on in (True, True, False):
        log.do(f"tc {on}", lambda on=on: set_feature(kernel, ifname, FeatureName.HW_TC_OFFLOAD, on=on))
        log.do("now", lambda: feature(kernel, ifname, FeatureName.HW_TC_OFFLOAD))
    log.do("fixed", lambda: set_feature(kernel, ifname, FeatureName.NTUPLE, on=True))
    log.do("no device", lambda: feature(kernel, "nobody", FeatureName.NTUPLE))
    classifier(subject, log)


def classifier(subject: Subject, log: Transcript) -> None:
    """What a device without rules answers to the commands on rules."""
    kernel, ifname = subject.kernel, subject.ifname
    rule = NtupleRule(flow=FlowType.ETHER, match=Match.of(eth_type=0x88F7), fate=Drop(), location=0)
    for command, name in ((0x2E, "count"), (0x2F, "rule"), (0x30, "list"), (0x31, "delete")):
        request = encode_request(command)
        log.do(name, lambda request=request: len(kernel.ethtool(ifname, request)))
    log.do("insert", lambda: len(kernel.ethtool(ifname, encode_rule(0x32, rule))))
    log.do("no command", lambda: kernel.ethtool(ifname, (0x7F).to_bytes(4, "little") + bytes(12)))


def feature(kernel: Kernel, ifname: str, name: FeatureName) -> str:
    """Return the state of a feature."""
    one = read_feature(kernel, ifname, name)
    return f"active {one.active} requested {one.requested} fixed {one.fixed}"


def simulated_vfs(subject: Subject, log: Transcript) -> None:
    """Settings of VFs over rtnetlink, right and wrong, in legacy and in switchdev mode."""
    write(subject, "sriov_numvfs", "2")()
    with VfLink(subject.kernel, subject.ifindex()) as link:
        vf_settings(link, log, (VlanTag(vid=7, pcp=3), VlanTag(vid=7, protocol="802.1ad")))
        with Devlink(subject.kernel) as devlink:
            devlink.set_eswitch(subject.handle, mode=EswitchMode.SWITCHDEV)
            log.do("rate in switchdev", apply(link, max_tx=2))
            log.do("mac in switchdev", apply(link, mac=MAC + 2))
            devlink.set_eswitch(subject.handle, mode=EswitchMode.LEGACY)
        log.do("at the end", lambda: reports(link))
    with VfLink(subject.kernel, 0x7FFF_0000) as link:
        log.do("no device", link.read)
    write(subject, "sriov_numvfs", "0")()


def vf_settings(link: VfLink, log: Transcript, tags: Iterable[VlanTag]) -> None:
    """Make every setting of a VF, and ask for those that can't be."""
    log.do("at first", lambda: reports(link))
    log.do("mac", apply(link, mac=MAC))
    log.do("no mac", apply(link, mac=0))
    log.do("mac", apply(link, mac=MAC))
    for tag in tags:
        log.do(f"vlan {tag.vid} {tag.pcp} {tag.protocol}", apply(link, vlan=tag))
    log.do("max rate", apply(link, max_tx=20))
    log.do("min rate", apply(link, min_tx=10, max_tx=20))
    for on in (True, False):
        log.do(f"spoof check {on}", apply(link, spoof_check=on))
        log.do(f"trust {on}", apply(link, trust=on))
    for state in LinkState:
        log.do(f"link {state.value}", apply(link, link_state=state))
    log.do("rss query", apply(link, rss_query=True))
    log.do("no such VF", apply(link, vf=7, mac=MAC))
    log.do("VFs", lambda: reports(link))
    log.do("count", link.count)


def apply(
    link: VfLink,
    *,
    vf: int = 0,
    min_tx: int | None = None,
    max_tx: int | None = None,
    rss_query: bool | None = None,
    **settings: object,
) -> Callable[[], object]:
    """Return a call that makes one setting of a VF; rates in Mbit/s."""
    rate = None
    if max_tx is not None:
        low = None if min_tx is None else min_tx * MBPS
        rate = RateLimit(min_tx_bps=low, max_tx_bps=max_tx * MBPS)
    request = VfRequest(config=VfConfig(vf=vf, **settings), rate=rate, rss_query=rss_query)

    def call() -> None:
        for refused in link.apply([request]):
            raise refused.error

    return call


def reports(link: VfLink) -> list[str]:
    """Return what the kernel reports of each VF; an address that its own driver took at random is as good as none."""
    return [
        str(dataclasses.asdict(one if one.mac in {MAC, MAC + 2} else dataclasses.replace(one, mac=0)))
        for one in link.read()
    ]


def simulated_filters(subject: Subject, log: Transcript) -> None:
    """Filters of flower, with the hardware and without."""
    kernel, ifindex = subject.kernel, subject.ifindex()
    drop = (Gact(verdict=Verdict.DROP),)
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        log.do("no qdisc", lambda: qdisc.find(netlink, ifindex))
        with TcFilters(kernel, Hook.ingress(ifindex)) as filters:

            def one(number: int, placing: Placing, **more: object) -> TcFilter:
                match = Match.of(ipv4_dst=number)
                return TcFilter(match=match, actions=drop, pref=1, handle=number, placing=placing, **more)

            def add(*items: TcFilter) -> Callable[[], list[str]]:
                return lambda: [outcome(found) for found in filters.add_many(items)]

            log.do("without a qdisc", add(one(1, Placing.BOTH)))
            log.do("add", lambda: qdisc.add(netlink, IngressQdisc(ifindex=ifindex)))
            log.do("add again", lambda: qdisc.add(netlink, IngressQdisc(ifindex=ifindex)))
            set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=False)
            log.do("hardware, off", add(one(1, Placing.HARDWARE)))
            log.do("both, off", add(one(1, Placing.BOTH)))
            set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=True)
            log.do("hardware, on", add(one(2, Placing.HARDWARE), one(3, Placing.HARDWARE)))
            log.do("software", add(one(4, Placing.SOFTWARE)))
            log.do("the same number", add(one(2, Placing.HARDWARE)))
            log.do("chain 3", add(one(5, Placing.HARDWARE, chain=3)))
            log.do("filters", lambda: sorted(state_of(state) for state in filters.dump()))
            ref = FilterRef(pref=1, handle=2, chain=0, protocol=0x0800, kind="flower")
            log.do(
                "off with filters",
                lambda: set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=False),
            )
            for what in ("delete", "delete again"):
                log.do(what, lambda: [outcome(found) for found in filters.delete_many([ref])])
            log.do("filters", lambda: sorted(state_of(state) for state in filters.dump()))
        log.do("qdisc gone", lambda: qdisc.delete(netlink, ifindex))
        log.do("qdisc gone again", lambda: qdisc.delete(netlink, ifindex))
        log.do("veb", lambda: set_hwmode(netlink, ifindex, HwMode.VEB))
        log.do("off", lambda: set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=False))


def simulated_random_filters(subject: Subject, log: Transcript) -> None:
    """Random filters of flower, over all keys and actions, and what the kernel says of each."""
    kernel, ifindex = subject.kernel, subject.ifindex()
    set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=True)
    made = seeded(lambda: random_filters(80, [ifindex], list(Placing)))
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        qdisc.add(netlink, IngressQdisc(ifindex=ifindex))
        with TcFilters(kernel, Hook.ingress(ifindex)) as filters:
            for item, found in zip(made, filters.add_many(made), strict=True):
                log.do(f"add {item.pref}", lambda found=found: outcome(found))
            for state in sorted(filters.dump(), key=lambda state: state.ref.pref):
                told = f"{state.ref} {state.filter} {state.in_hw} {state.in_hw_count} {state.foreign}"
                log.do("filter", lambda told=told: told.replace(f"ifindex={ifindex}", "ifindex=OWN"))
            refs = [state.ref for state in filters.dump()]
            log.do("delete", lambda: {outcome(found) for found in filters.delete_many(refs[::2])})
            log.do("left", lambda: len(filters.dump()))
        qdisc.delete(netlink, ifindex)
    set_feature(kernel, subject.ifname, FeatureName.HW_TC_OFFLOAD, on=False)


def simulated_random_vfs(subject: Subject, log: Transcript) -> None:
    """Random settings of VFs, many in one datagram, and what the kernel reports of them."""
    write(subject, "sriov_numvfs", "4")()
    with VfLink(subject.kernel, subject.ifindex()) as link:
        for number in range(10):
            requests = random_requests(4, 4, seed=number)
            log.do("apply", lambda requests=requests: len(link.apply(requests)))
            log.do("read", lambda: [str(dataclasses.asdict(one)) for one in link.read()])
    write(subject, "sriov_numvfs", "0")()


def seeded(make: Callable[[], list[TcFilter]]) -> list[TcFilter]:
    """Return what is made at random, always the same."""
    before = random.getstate()
    random.seed(16)
    try:
        return make()
    finally:
        random.setstate(before)


def outcome(found: object) -> str:
    """Return what became of one filter."""
    if isinstance(found, NicOffloadError):

        def call() -> None:
            raise found

        return answer(call)
    return "done"


def state_of(state: FilterState) -> str:
    """Return what the kernel says of a filter."""
    placing = state.filter.placing.name.lower()
    return f"{state.ref.pref}/{state.ref.handle:#x} {placing} in hardware {state.in_hw} {state.in_hw_count}"


def simulated_events(subject: Subject, log: Transcript) -> None:
    """What is told of VFs and modes that come and go."""
    topics = [Topic.DEVLINK, Topic.BUS, Topic.LINK]
    with Devlink(subject.kernel) as devlink, Events(subject.kernel, topics, buses=["netdevsim"]) as events:
        write(subject, "sriov_numvfs", "1")()
        devlink.set_eswitch(subject.handle, mode=EswitchMode.SWITCHDEV)
        devlink.create_node(subject.handle, RateNode(name="group"))
        devlink.set_rate(subject.handle, RateLeaf(port=128), RateChange(parent="group"))
        devlink.set_rate(subject.handle, RateLeaf(port=128), RateChange(parent=""))
        devlink.delete_node(subject.handle, RateNode(name="group"))
        devlink.set_eswitch(subject.handle, mode=EswitchMode.LEGACY)
        write(subject, "sriov_numvfs", "0")()
        seen: list[object] = []
        while not any(isinstance(one, LinkEvent) and one.change.value == "gone" for one in seen):
            seen += events.read(5)
        for _ in range(40):
            seen += events.read(0.01)
    told = [one for one in seen if isinstance(one, DevlinkEvent) and one.handle == subject.handle]
    rates = [f"{one.change.value} {one.part.ref}" for one in told if type(one.part).__name__ == "Rate"]
    log.do("rates", lambda: rates)
    log.do(
        "ports",
        lambda: sorted(
            {f"{one.change.value} {one.part.index}" for one in told if type(one.part).__name__ == "Port"}
        ),
    )
    links = [one.change.value for one in seen if isinstance(one, LinkEvent)]
    log.do("links", lambda: [one for one in ("appeared", "gone") if one in links])
    log.do("bus", lambda: [one.change for one in seen if isinstance(one, BusEvent)])


def controller(subject: Subject, log: Transcript) -> None:
    """What generic netlink says to who asks wrong."""
    with Netlink(subject.kernel, NETLINK_GENERIC) as netlink:

        def ask(kind: int, payload: bytes) -> str:
            refused, replies = netlink.request(kind, 0, payload)
            return f"{errno_name(refused.errno)} {refused.text!r}" if refused else f"{len(replies)} replies"

        family = genetlink.resolve(netlink, "devlink")
        log.do("version", lambda: family.version)
        log.do("groups", lambda: sorted(family.groups))
        log.do("no family", lambda: genetlink.resolve(netlink, "absent"))
        log.do("no name", lambda: ask(0x10, b"\x03\x01\0\0"))
        log.do("open name", lambda: ask(0x10, b"\x03\x01\0\0" + b"\x08\0\x02\0abcd"))
        log.do("no number", lambda: ask(0xFFF, b"\x01\x01\0\0"))
        log.do("no command", lambda: ask(family.number, b"\xfa\x01\0\0"))
        log.do("cut short", lambda: ask(family.number, b"\x01"))
        log.do("nobody named", lambda: ask(family.number, b"\x01\x01\0\0"))
        log.do("short number", lambda: ask(family.number, b"\x05\x01\0\0" + b"\x05\0\x03\0\x01\0\0\0"))


# 82576 ----------------------------------------------------------------------------------------------------------------


def igb_sysfs(subject: Subject, log: Transcript) -> None:
    """SR-IOV, drivers and resets of a PCI function, as sysfs refuses them."""
    kernel = subject.kernel
    for name in ("class", "vendor", "device", "sriov_totalvfs", "sriov_numvfs", "sriov_drivers_autoprobe"):
        log.do(name, read(subject, f"{subject.folder}/{name}"))
    log.do("driver_override", read(subject, f"{subject.folder}/driver_override"))
    for text in ("8", "70000", "-1", "two", "", "0", "3", "3", "4"):
        log.do(f"write {text!r}", write(subject, "sriov_numvfs", text))
    log.do("VFs", read(subject, f"{subject.folder}/sriov_numvfs"))
    log.do("total", write(subject, "sriov_totalvfs", "9"))
    log.do("reset is written", read(subject, f"{subject.folder}/reset"))
    vf = kernel.readlink_sysfs(f"{subject.folder}/virtfn0").rpartition("/")[2]
    folder = f"bus/pci/devices/{vf}"
    log.do("VF", lambda: kernel.readlink_sysfs(f"{folder}/physfn").rpartition("/")[2] == subject.name)
    log.do("VF's driver", lambda: kernel.readlink_sysfs(f"{folder}/driver").rpartition("/")[2])
    log.do("VF's id", read(subject, f"{folder}/device"))
    log.do("VF has no VFs", read(subject, f"{folder}/sriov_totalvfs"))
    log.do("VF's device", lambda: len(kernel.list_sysfs(f"{folder}/net")))
    for file, who in (
        ("drivers/igb/bind", vf),
        ("drivers/igb/unbind", vf),
        ("drivers/igbvf/bind", vf),
        ("drivers_probe", vf),
        ("drivers_probe", "0000:ff:1f.7"),
        ("drivers/absent/bind", vf),
        ("drivers/igbvf/unbind", vf),
        ("drivers/igbvf/unbind", vf),
        ("drivers/igbvf/bind", vf),
    ):
        log.do(
            f"{file} {'VF' if who == vf else 'nobody'}",
            lambda file=file, who=who: kernel.write_sysfs(f"bus/pci/{file}", who.encode()),
        )
    log.do("bind is written", read(subject, "bus/pci/drivers/igb/bind"))
    for text in ("igb", "", "igbvf\n", "\n"):
        log.do(
            f"override {text!r}",
            lambda text=text: kernel.write_sysfs(f"{folder}/driver_override", text.encode()),
        )
        log.do("is", read(subject, f"{folder}/driver_override"))
    for text in ("0", "y", "maybe", "1"):
        log.do(f"autoprobe {text!r}", write(subject, "sriov_drivers_autoprobe", text))
        log.do("is", read(subject, f"{subject.folder}/sriov_drivers_autoprobe"))
    for text in ("2", "x"):
        log.do(f"reset {text!r}", lambda text=text: kernel.write_sysfs(f"{folder}/reset", text.encode()))
    log.do("reset method", lambda: kernel.write_sysfs(f"{folder}/reset_method", b"magic"))
    log.do(
        "roles",
        lambda: [
            identify(kernel, name).role for name in (subject.ifname, *kernel.list_sysfs(f"{folder}/net"))
        ],
    )
    log.do("no port", read(subject, f"class/net/{subject.ifname}/phys_port_name"))
    set_up(kernel, subject.ifindex())
    log.do("queues", lambda: {"rx-0", "tx-0"} <= set(kernel.list_sysfs(f"class/net/{subject.ifname}/queues")))
    log.do("traffic class", read(subject, f"class/net/{subject.ifname}/queues/tx-0/traffic_class"))
    log.do("write '0'", write(subject, "sriov_numvfs", "0"))
    log.do("VF gone", read(subject, f"{folder}/device"))


def igb_vfio(subject: Subject, log: Transcript) -> None:
    """VFs that go to vfio-pci and home again, with their groups, and a physical function that loses its driver."""
    kernel = subject.kernel
    sriov = Sriov(kernel, subject.name)
    log.do("too many", lambda: sriov.set_vfs(8))
    first, second = sriov.set_vfs(2)
    names = {subject.name: "PF", first: "VF 0", second: "VF 1"}
    vf, function = Binding(kernel, first), PciFunction(kernel, first)

    def drivers() -> list[str]:
        return [
            f"{name} {PciFunction(kernel, address).driver() or 'none'}" for address, name in names.items()
        ]

    def groups() -> list[str]:
        found = [PciFunction(kernel, address).iommu_group() for address in names]
        return [shown(names[member] for member in group.members) for group in found if group is not None]

    log.do("groups", groups)
    log.do("index", lambda: [PciFunction(kernel, address).vf_index() for address in (first, second)])
    log.do("drivers", drivers)
    log.do("no such driver", lambda: vf.give_to("absent"))
    log.do("wrong driver", lambda: vf.give_to("igb"))
    log.do("drivers", drivers)
    for _ in range(2):
        log.do("to vfio", lambda: vf.give_to("vfio-pci"))
        log.do("drivers", drivers)
    log.do("override", vf.override)
    log.do("no device", lambda: kernel.list_sysfs(f"bus/pci/devices/{first}/net"))
    log.do("groups", groups)
    log.do("reset", function.reset)
    log.do("holders", function.holders)
    log.do("other VF's reset", PciFunction(kernel, second).reset)
    for _ in range(2):
        log.do("home", vf.give_back)
    log.do("override", vf.override)
    log.do("device", lambda: len(kernel.list_sysfs(f"bus/pci/devices/{first}/net")))
    log.do("unbind", vf.unbind)
    log.do("drivers", drivers)
    log.do("bind wrong", lambda: vf.bind("igb"))
    log.do("bind", lambda: vf.bind("igbvf"))
    physical = Binding(kernel, subject.name)
    log.do("unbind the PF", physical.unbind)
    log.do("VFs gone", lambda: kernel.list_sysfs(f"bus/pci/devices/{first}"))
    log.do("no driver, no VFs", write(subject, "sriov_numvfs", "1"))
    log.do("no driver, still none", write(subject, "sriov_numvfs", "0"))
    log.do("no devices", lambda: kernel.list_sysfs(f"{subject.folder}/net"))
    log.do("bind the PF", lambda: physical.bind("igb"))
    log.do("devices", lambda: len(kernel.list_sysfs(f"{subject.folder}/net")))


def igb_events(subject: Subject, log: Transcript) -> None:
    """What the bus tells of VFs that come, change hands and go."""
    sriov = Sriov(subject.kernel, subject.name)
    with Events(subject.kernel, [Topic.BUS]) as events:
        first, second = sriov.set_vfs(2)
        Binding(subject.kernel, first).give_to("vfio-pci")
        Binding(subject.kernel, first).give_back()
        sriov.set_vfs(0)
        names = {subject.name: "PF", first: "VF 0", second: "VF 1"}
        seen: list[BusEvent] = []
        while not any(one.name == second and one.change.value == "gone" for one in seen):
            seen += [one for one in events.read(5) if isinstance(one, BusEvent) and one.name in names]
    log.do("bus", lambda: [f"{names[one.name]} {one.change.value} {one.driver}".strip() for one in seen])


def await_link(subject: Subject) -> None:
    """Wait until the PF's link is up, half a minute at most."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):  # EINVAL: the device is down
            if subject.kernel.read_sysfs(f"class/net/{subject.ifname}/carrier").strip() == b"1":
                return
    raise TimeoutError("the link stays down")


def igb_vfs(subject: Subject, log: Transcript) -> None:
    """Settings of VFs over rtnetlink, right and wrong."""
    write(subject, "sriov_numvfs", "2")()
    await_link(subject)  # igb takes its device down and up to make VFs, and refuses rates meanwhile
    with VfLink(subject.kernel, subject.ifindex()) as link:
        vf_settings(link, log, (VlanTag(vid=7, pcp=3), VlanTag(vid=7, protocol="802.1ad")))
        log.do("more than the link", apply(link, max_tx=1001))
        log.do("as the link", apply(link, max_tx=1000))
    write(subject, "sriov_numvfs", "0")()


def igb_offloads(subject: Subject, log: Transcript) -> None:
    """Features, rules and filters that this NIC has not."""
    kernel, ifname = subject.kernel, subject.ifname
    for name in FeatureName:
        log.do(name.value, lambda name=name: feature(kernel, ifname, name))
    log.do("fixed", lambda: set_feature(kernel, ifname, FeatureName.NTUPLE, on=True))
    classifier(subject, log)
    ifindex = subject.ifindex()
    with Netlink(kernel, NETLINK_ROUTE) as netlink, TcFilters(kernel, Hook.ingress(ifindex)) as filters:
        log.do("add", lambda: qdisc.add(netlink, IngressQdisc(ifindex=ifindex)))
        for placing in Placing:
            item = TcFilter(
                match=Match.of(ipv4_dst=1),
                actions=(Gact(verdict=Verdict.DROP),),
                pref=1,
                handle=1,
                placing=placing,
            )
            log.do(
                placing.name.lower(), lambda item=item: [outcome(found) for found in filters.add_many([item])]
            )
            log.do("filters", lambda: [state_of(state) for state in filters.dump()])
            log.do(
                "delete",
                lambda: [
                    outcome(found)
                    for found in filters.delete_many(
                        [FilterRef(pref=1, handle=1, chain=0, protocol=0x0800, kind="flower")]
                    )
                ],
            )
        log.do("gone", lambda: qdisc.delete(netlink, ifindex))
    with Devlink(kernel) as devlink:
        log.do("no devlink", lambda: devlink.info(subject.handle))


Scenario = Callable[[Subject, Transcript], None]
SIMULATED: tuple[Scenario, ...] = (
    simulated_sysfs,
    simulated_devlink,
    simulated_rates,
    simulated_features,
    simulated_vfs,
    simulated_filters,
    simulated_random_filters,
    simulated_random_vfs,
    simulated_events,
    controller,
)
IGB: tuple[Scenario, ...] = (igb_sysfs, igb_vfio, igb_events, igb_vfs, igb_offloads)


def run(scenario: Scenario, subject: Subject) -> str:
    """Return the transcript of a scenario, as text."""
    log = Transcript()
    scenario(subject, log)
    return "\n".join(log.lines) + "\n"
