"""Every decoder of nicoffload/kernel and of the fake kernel, each with what it reads in earnest."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Callable, Mapping

from nicoffload.errors import NotSupportedError
from nicoffload.kernel import genetlink
from nicoffload.kernel.attributes import Buffer, fields, number, parse, string
from nicoffload.kernel.bridge import read_hwmode
from nicoffload.kernel.devlink import decode as devlink
from nicoffload.kernel.discovery import discover
from nicoffload.kernel.events import Events, Topic
from nicoffload.kernel.features import read_features
from nicoffload.kernel.netlink import Message, Netlink, messages, refusal
from nicoffload.kernel.ntuple import NtupleTable
from nicoffload.kernel.ntuple_layout import decode_rule, encode_request, location_of, table_of
from nicoffload.kernel.ntuple_rules import raise_rule
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.representors import identify
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_ROUTE
from nicoffload.kernel.sriov import Sriov
from nicoffload.kernel.tc import (
    Gact,
    Hook,
    QueueMapping,
    Targets,
    TcFilter,
    TcFilters,
    Verdict,
    flower,
    police,
    qdisc,
    raise_actions,
    read,
    u32,
    u32_filters,
)
from nicoffload.kernel.tc.actions import KIND, OPTIONS, decode_action, encode_actions, idle_ns
from nicoffload.kernel.tc.columns import columns
from nicoffload.kernel.tc.template import TCA_KIND, TCA_OPTIONS, TCMSG
from nicoffload.kernel.vf import VfLink
from nicoffload.kernel.vf_layout import VFINFO_LIST, decode_reports, decode_traffic
from nicoffload.model import ByteBasis, CounterFacts, Match
from tests.fuzz import seeds
from tests.fuzz.answers import ADDRESS, Answers, acknowledgement, answered, done
from tests.fuzz.devices import devices
from tests.fuzz.fake import fake
from tests.fuzz.run import Decoder

HEADER = 16
_IFINFO = 16
_FACTS = CounterFacts(source="nic:vf", byte_basis=ByteBasis.UNKNOWN)
_TARGETS = Targets(ifindexes={0: 1, 1: 2, 2: 3})
_DUMP = 0x300
_LINK_PORT = 42


# ------------------------------------------------------------------------------------------------------------ netlink


def _messages(datagram: bytes) -> None:
    for message in messages(datagram):
        if message.kind in {2, 3}:
            refusal(message)


def _refusal_with_its_request() -> bytes:
    """Return a refusal as a socket gets it that did not ask for short ones."""
    request = struct.pack("=IHHIII", 20, 38, 1, 1, 0, 0)
    words = struct.pack("=HH", 4 + 8, 1) + b"refused\0"
    refused = struct.pack("=i", -errno.EINVAL) + request + words
    return struct.pack("=IHHII", 16 + len(refused), 2, 0x200, 1, 0) + refused


def _batch(datagram: bytes) -> None:
    with Netlink(Answers(netlink=[datagram]), NETLINK_ROUTE) as netlink:
        netlink.batch(struct.pack("=IHHII", HEADER, 18, 5, 1, 0), 1)


def _dump(datagram: bytes) -> None:
    with Netlink(Answers(netlink=[datagram, done()]), NETLINK_ROUTE) as netlink:
        for one in netlink.dump(18, b"", capability="fuzz"):
            list(messages(one))


def _attributes(data: bytes, depth: int = 4) -> None:
    for payload in parse(data).values():
        string(payload)
        if len(payload) >= 8:
            number(payload, 8)
        if depth and len(payload) >= 4:
            first = struct.unpack_from("=H", payload)[0]
            if 4 <= first <= len(payload):
                _attributes(bytes(payload), depth - 1)


# ----------------------------------------------------------------------------------------------------------------- tc


def _options(message: bytes) -> tuple[str, int, dict[int, Buffer]]:
    """Return classifier, protocol word and options of a filter that was recorded."""
    found = parse(message, HEADER + TCMSG.size)
    word = fields(TCMSG, message[HEADER:])[4]
    return string(found[TCA_KIND]), word, parse(found[TCA_OPTIONS])


def _tc_parts() -> tuple[dict[str, list[bytes]], list[bytes], dict[str, list[bytes]]]:
    """Return the options of each classifier, the actions, and the options of each kind of action, as recorded."""
    by_kind: dict[str, list[bytes]] = {}
    actions: list[bytes] = []
    by_action: dict[str, list[bytes]] = {}
    for message in seeds.filters("full"):
        found = parse(message, HEADER + TCMSG.size) if len(message) > HEADER + TCMSG.size else {}
        if TCA_OPTIONS not in found or not found[TCA_OPTIONS]:
            continue
        kind, _, options = _options(message)
        by_kind.setdefault(kind, []).append(bytes(found[TCA_OPTIONS]))
        for entry in read.entries(options.get(read.CLASSIFIERS[kind.encode()].act, b"")):
            actions.append(bytes(entry))
            inside = parse(entry)
            by_action.setdefault(string(inside[KIND]), []).append(bytes(inside[OPTIONS]))
    return by_kind, actions, by_action


def _action(entry: bytes) -> None:
    action = decode_action(entry)
    idle_ns(entry, 0)
    read.counters(entry)
    read.rule_id([entry])
    match = Match.of(eth_type=0x0800, ip_proto=6)
    raise_actions([action], match, _TARGETS)


def _flower_options(options: bytes) -> None:
    flower.decode_match(parse(options), 0x0800)


def _u32_options(options: bytes) -> None:
    keys, _, _, _ = u32.decode(parse(options))
    u32.decode_match(0x0800, keys)


def _columns(datagram: bytes) -> None:
    found = columns([datagram])
    for row in range(len(found.handles)):
        found.rule_id(row)


def _queue() -> bytes:
    """Return an action that no kernel of the recordings has: netdevsim has no queues to choose."""
    [entry] = read.entries(encode_actions((QueueMapping(queue=3),)))
    return bytes(entry)


def _echo(datagram: bytes) -> None:
    """Read what the kernel made of a filter of which it was to choose the number."""
    item = TcFilter(match=Match.of(eth_type=0x0800), actions=(Gact(verdict=Verdict.DROP),), pref=1)
    with TcFilters(Answers(netlink=[datagram, acknowledgement()]), Hook.ingress(1)) as filters:
        filters.add_many([item])


def _qdisc(datagram: bytes) -> None:
    with Netlink(Answers(netlink=[datagram, done()]), NETLINK_ROUTE) as netlink:
        qdisc.find(netlink, 0x7FFF_FFFF)


def _tc() -> list[Decoder]:
    by_kind, actions, by_action = _tc_parts()
    full, terse = seeds.filters("full"), seeds.filters("terse")
    head = HEADER + TCMSG.size
    return [
        Decoder(name="tc.full", seeds=full, decode=lambda one: read.states([one]), head=head, framed=True),
        Decoder(name="tc.terse", seeds=terse, decode=lambda one: read.states([one]), head=head, framed=True),
        Decoder(name="tc.columns.full", seeds=full, decode=_columns, head=head, framed=True),
        Decoder(name="tc.columns.terse", seeds=terse, decode=_columns, head=head, framed=True),
        Decoder(
            name="tc.u32",
            seeds=[one for one in full if b"u32\0" in one],
            decode=lambda one: u32_filters.states([one]),
            head=head,
            framed=True,
        ),
        Decoder(name="tc.flower.options", seeds=by_kind["flower"], decode=_flower_options),
        Decoder(
            name="tc.u32.options",
            seeds=[one for one in by_kind["u32"] if u32.SEL in parse(one)],  # the others are tables
            decode=_u32_options,
        ),
        Decoder(name="tc.actions", seeds=[*actions, _queue()], decode=_action),
        Decoder(
            name="tc.echo",
            seeds=[answered(one) for one in full],
            decode=_echo,
            head=head,
            framed=True,
            always_named=False,
        ),
        Decoder(name="tc.police", seeds=by_action["police"], decode=police.decode),
        Decoder(
            name="tc.qdiscs",
            seeds=seeds.answers("qdiscs", 36),
            decode=_qdisc,
            head=head,
            framed=True,
        ),
    ]


# ---------------------------------------------------------------------------------------------------- links and VFs


def _vf_lists() -> list[bytes]:
    links = (parse(one, HEADER + _IFINFO) for one in seeds.answers("vfs", 16))
    return [bytes(link[VFINFO_LIST]) for link in links if VFINFO_LIST in link]


def _vf_list(data: bytes) -> None:
    decode_reports(data)
    decode_traffic(data, _FACTS)


def _vf_traffic(data: bytes) -> None:
    decode_traffic(data, _FACTS)


def _vf_link(datagram: bytes) -> None:
    with VfLink(Answers(netlink=[datagram, acknowledgement()]), 1) as link:
        link.read()


def _vf_count(datagram: bytes) -> None:
    with VfLink(Answers(netlink=[datagram, acknowledgement()]), 1) as link:
        link.count()


def _bridge(datagram: bytes) -> None:
    with Netlink(Answers(netlink=[datagram, done()]), NETLINK_ROUTE) as netlink:
        read_hwmode(netlink, _LINK_PORT)


def _bridge_seeds() -> list[bytes]:
    # All of the device that is asked for, so that its mode is looked at.
    return [one[:20] + struct.pack("=i", _LINK_PORT) + one[24:] for one in seeds.answers("bridges", 16)]


def _links() -> list[Decoder]:
    links = seeds.answers("vfs", 16)
    head = HEADER + _IFINFO
    return [
        Decoder(name="vf.reports", seeds=_vf_lists(), decode=_vf_list),
        Decoder(name="vf.traffic", seeds=_vf_lists(), decode=_vf_traffic),
        Decoder(name="vf.link", seeds=links, decode=_vf_link, head=head, framed=True),
        Decoder(name="vf.count", seeds=links, decode=_vf_count, head=head, framed=True),
        Decoder(name="link.hwmode", seeds=_bridge_seeds(), decode=_bridge, head=head, framed=True),
    ]


# ----------------------------------------------------------------------------------------- generic netlink, devlink


def _family(datagram: bytes) -> None:
    with Netlink(Answers(netlink=[datagram, acknowledgement()]), NETLINK_GENERIC) as netlink:
        genetlink.resolve(netlink, "devlink")


def _devlink_with(read_one: Callable[[Mapping[int, Buffer]], object]) -> Callable[[bytes], None]:
    def decode(payload: bytes) -> None:
        _, found = genetlink.body(Message(kind=0x19, flags=0, sequence=1, payload=payload))
        read_one(found)

    return decode


def _devlink_payloads(*commands: int) -> list[bytes]:
    number = next(
        kind for one in seeds.recorded("devlink") if (kind := struct.unpack_from("=H", one, 4)[0]) >= 0x10
    )
    return [one[HEADER:] for one in seeds.answers("devlink", number) if one[HEADER] in commands]


def _generic() -> list[Decoder]:
    families = seeds.answers("families", 0x10)
    head = 4
    return [
        Decoder(name="genetlink.family", seeds=families, decode=_family, head=HEADER + 4, framed=True),
        Decoder(
            name="devlink.port",
            seeds=_devlink_payloads(3, 7),
            decode=_devlink_with(devlink.port),
            head=head,
        ),
        Decoder(
            name="devlink.rate", seeds=_devlink_payloads(76), decode=_devlink_with(devlink.rate), head=head
        ),
        Decoder(
            name="devlink.eswitch",
            seeds=_devlink_payloads(29),
            decode=_devlink_with(devlink.eswitch),
            head=head,
        ),
        Decoder(name="devlink.info", seeds=_devlink_payloads(51), decode=devlink.info, head=head),
    ]


# ------------------------------------------------------------------------------------------------------------- ioctls


def _ntuple_rule(data: bytes) -> None:
    state = decode_rule(data)
    location_of(data)
    if state.rule is not None:
        with contextlib.suppress(NotSupportedError):  # the model has no words for all that a driver takes
            raise_rule(state.rule)


def _ntuple_table(data: bytes) -> None:
    count, listed = data[: len(data) // 2], data[len(data) // 2 :]
    NtupleTable(Answers(ioctl={0x2E: count, 0x30: listed}), "nic0").info()
    table_of(data)


def _ntuple_lists() -> list[bytes]:
    found = []
    for rules in (0, 1, 17):
        count = bytearray(encode_request(0x2E, count=rules))
        listed = bytearray(
            encode_request(0x30, count=rules)[:-4] + struct.pack(f"={rules + 1}I", *range(rules + 1))
        )
        for one in (count, listed):
            struct.pack_into("=Q", one, 8, 1024)
        found.append(bytes(count.ljust(len(listed), b"\0") + listed))
    return found


def _features(data: bytes) -> None:
    info, strings, block = data[:20], data[20 : 20 + 12 + 64 * 32], data[20 + 12 + 64 * 32 :]
    read_features(Answers(ioctl={0x37: info, 0x1B: strings, 0x3A: block}), "nic0")


def _feature_seeds() -> list[bytes]:
    info, strings, blocks = seeds.recorded("features")[:3]
    return [info + strings.ljust(12 + 64 * 32, b"\0") + blocks]


def _ioctls() -> list[Decoder]:
    return [
        Decoder(name="ntuple.rule", seeds=seeds.ntuple(), decode=_ntuple_rule),
        Decoder(name="ntuple.table", seeds=_ntuple_lists(), decode=_ntuple_table),
        Decoder(name="features", seeds=_feature_seeds(), decode=_features),
    ]


# ------------------------------------------------------------------------------------------------------------- events


def _event(topic: Topic) -> Callable[[bytes], None]:
    """Return what reads one event of a topic through a listener that is opened once, as a program keeps it."""
    opening = {Topic.LINK: [done()], Topic.DEVLINK: [seeds.answers("families", 0x10)[0], acknowledgement()]}
    kernel = Answers(netlink=opening.get(topic, []))
    events = Events(kernel, [topic], buses=["netdevsim"])
    [(_, channel)] = [key.data for key in events._selector.get_map().values()]

    def decode(datagram: bytes) -> None:
        channel.waiting = [datagram]
        events.read(0)

    return decode


def _events() -> list[Decoder]:
    heads = {Topic.LINK: HEADER + _IFINFO, Topic.FILTER: HEADER + TCMSG.size, Topic.DEVLINK: HEADER + 4}
    return [
        Decoder(
            name=f"events.{topic.value}",
            seeds=seeds.recorded(f"events-{topic.value}"),
            decode=_event(topic),
            head=heads.get(topic, 0),
            framed=topic is not Topic.BUS,
            always_named=topic is not Topic.BUS,
        )
        for topic in Topic
    ]


# -------------------------------------------------------------------------------------------------------------- sysfs

_FILES = (
    "ifindex",
    "phys_switch_id",
    "phys_port_name",
    "class",
    "vendor",
    "device",
    "numa_node",
    "sriov_totalvfs",
    "sriov_drivers_autoprobe",
    "iommu_group",
)


def _sysfs(data: bytes) -> None:
    """Read what discovery, representors and SR-IOV read, from files whose contents are the lines of the data."""
    lines = dict(zip(_FILES, data.split(b"\n"), strict=False))
    net, pci = "class/net/nic0", f"bus/pci/devices/{ADDRESS}"
    files = {f"{net}/{name}": lines[name] for name in _FILES[:3] if name in lines}
    files |= {f"{pci}/{name}": lines[name] for name in _FILES[3:-1] if name in lines}
    files[f"{pci}/iommu_group/devices/{ADDRESS}"] = b""
    links = {net: f"../../devices/pci0000:00/{ADDRESS}/net/nic0", f"{pci}/virtfn0": "../0000:01:10.0"}
    if "iommu_group" in lines:
        links[f"{pci}/iommu_group"] = (
            f"../../kernel/iommu_groups/{lines['iommu_group'].decode('utf-8', 'replace')}"
        )
    kernel = Answers(files=files, links=links)
    identify(kernel, "nic0")
    discover(kernel)
    Sriov(kernel, ADDRESS).state()
    PciFunction(kernel, ADDRESS).iommu_group()


_SYSFS_SEEDS = (
    b"7\n0a1b2c3d4e5f\npf0vf3\n0x020000\n0x8086\n0x10c9\n0\n7\n1\n9",
    b"12\n\np0s1\n0x020000\n0x15b3\n0x101d\n-1\n127\n0\n12",
    b"3\n00\nc1pf0sf88\n0x030000\n0x1924\n0x0a03\n1\n240\n1\n0",
)


# ------------------------------------------------------------------------------------------------------ all of them


def decoders() -> list[Decoder]:
    """Return every decoder, in the order of its file."""
    answers = [answered(one) for whole in seeds.recorded("acknowledgements") for one in seeds.split(whole)]
    plain = [one for kind in ("vfs", "devlink", "qdiscs") for one in seeds.recorded(kind)]
    parts = [one[HEADER + TCMSG.size :] for one in seeds.filters("full") if len(one) > 64]
    return [
        Decoder(name="attributes", seeds=parts, decode=_attributes),
        Decoder(
            name="netlink.messages",
            seeds=[*answers, *plain, _refusal_with_its_request()],
            decode=_messages,
            framed=True,
        ),
        Decoder(name="netlink.batch", seeds=answers, decode=_batch, head=HEADER, framed=True),
        Decoder(
            name="netlink.dump",
            seeds=[answered(one) for one in plain],
            decode=_dump,
            head=HEADER,
            framed=True,
        ),
        *_tc(),
        *_links(),
        *devices(),
        *_generic(),
        *_ioctls(),
        *_events(),
        Decoder(name="sysfs", seeds=_SYSFS_SEEDS, decode=_sysfs),
        *fake(),
    ]
