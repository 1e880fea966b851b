"""Devlink against a kernel that answers by script: values, units, numbers on the wire, errors, commands."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import (
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
)
from nicoffload.kernel.attributes import MalformedError, attribute, nested, parse, text, u8, u16, u32, u64
from nicoffload.kernel.devlink import (
    Devlink,
    EncapMode,
    Eswitch,
    EswitchMode,
    FunctionOpstate,
    FunctionState,
    Handle,
    Info,
    InlineMode,
    Port,
    PortFlavour,
    PortFunction,
    Rate,
    RateChange,
    RateLeaf,
    RateNode,
    Version,
    VersionKind,
    create_node_command,
    decode,
    delete_node_command,
    eswitch_command,
    function_command,
    rate_command,
    values,
)
from nicoffload.kernel.netlink import HEADER
from tests.kernel.scripted import ScriptedKernel

NIC = Handle(bus="pci", name="0000:03:00.0")
WHO = text(1, "pci") + text(2, "0000:03:00.0")
FAMILY = 0x19
MAC = 0x02_00_00_00_00_07


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload


def generic(sequence: int, payload: bytes) -> bytes:
    return message(FAMILY, 0, sequence, b"\x01\x01\0\0" + payload)


def end(sequence: int, number: int = 0, words: str = "") -> bytes:
    extack = text(1, words) if words else b""
    return message(2, 0x300 if words else 0x100, sequence, struct.pack("=i", -number) + bytes(16) + extack)


class DevlinkKernel:
    """Answers each command with what the test has put there: payloads, then an errno.

    Args:
        answers: Command to payloads of the answer.
        refusals: Command to errno and the kernel's words.
    """

    def __init__(self, answers: dict[int, list[bytes]] | None = None, refusals=None) -> None:
        self.answers = {1: [WHO], **(answers or {})}
        self.refusals = refusals or {}
        self.said: list[tuple[int, int, bytes]] = []
        """Command, flags and attributes of each request."""

    def __call__(self, datagram: bytes) -> Iterable[bytes]:
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram)
        assert length == len(datagram)
        if kind == 0x10:  # the family of families
            assert datagram[16] == 3
            assert parse(datagram, 20)[2] == b"devlink\0"
            groups = nested(7, nested(1, text(1, "config"), u32(2, 9)))
            yield message(0x10, 0, sequence, b"\x01\x02\0\0" + u16(1, FAMILY) + u32(3, 1) + groups)
            yield end(sequence)
            return
        assert kind == FAMILY
        command = datagram[16]
        self.said.append((command, flags, datagram[20:]))
        answers = self.answers.get(command, [])
        if flags & 0x300 == 0x300:
            yield b"".join(generic(sequence, one) for one in answers)
            yield message(3, 2, sequence, struct.pack("=i", 0))
            return
        if command not in self.refusals:
            yield from (generic(sequence, one) for one in answers)
        yield end(sequence, *self.refusals.get(command, ()))


def opened(kernel: DevlinkKernel) -> Devlink:
    return Devlink(ScriptedKernel(kernel))


def test_the_family_is_found_by_name_with_its_groups():
    with opened(DevlinkKernel()) as devlink:
        family = devlink._socket.family
    assert (family.number, family.version, dict(family.groups)) == (FAMILY, 1, {"config": 9})


def test_a_kernel_without_devlink_says_so():
    def none(datagram: bytes) -> Iterable[bytes]:
        yield end(HEADER.unpack_from(datagram)[3], errno.ENOENT)

    with pytest.raises(NotSupportedError, match="devlink"):
        Devlink(ScriptedKernel(none))


def test_what_is_read_becomes_values():
    version = [
        nested(100, text(103, "board.id"), text(104, "K1")),
        nested(101, text(103, "fw"), text(104, "7.1")),
        nested(101, text(103, "fw.mgmt"), text(104, "2")),
        nested(102, text(103, "fw"), text(104, "8.0")),
    ]
    function = nested(145, attribute(1, MAC.to_bytes(6, "big")), u8(2, 1), u8(3, 0))
    vf = u32(3, 4) + u16(77, 4) + u16(127, 0) + u16(128, 3) + u32(150, 1) + u8(149, 1) + function
    uplink = u32(3, 0) + u16(77, 0) + u32(78, 0) + u32(6, 12) + text(7, "p0")
    leaf = u16(165, 0) + u32(3, 4) + u64(166, 125) + u64(167, 125_000) + u32(177, 7) + u32(178, 9)
    node = u16(165, 1) + text(168, "gold") + u64(166, 0) + u64(167, 1) + text(169, "all")
    kernel = DevlinkKernel(
        {
            1: [WHO, text(1, "pci") + text(2, "0000:04:00.0")],
            5: [WHO + uplink, WHO + vf],
            29: [WHO + u16(25, 1) + u8(26, 2) + u8(62, 1)],
            51: [WHO + text(98, "mlx5_core") + text(99, "S1") + text(146, "B1") + b"".join(version)],
            74: [WHO + leaf, WHO + node],
        }
    )
    with opened(kernel) as devlink:
        assert [str(one) for one in devlink.devices()] == ["pci/0000:03:00.0", "pci/0000:04:00.0"]
        assert devlink.eswitch(NIC) == Eswitch(
            handle=NIC,
            mode=EswitchMode.SWITCHDEV,
            inline_mode=InlineMode.NETWORK,
            encap_mode=EncapMode.BASIC,
        )
        assert devlink.info(NIC) == Info(
            handle=NIC,
            driver="mlx5_core",
            serial_number="S1",
            board_serial_number="B1",
            versions=(
                Version(kind=VersionKind.FIXED, name="board.id", value="K1"),
                Version(kind=VersionKind.RUNNING, name="fw", value="7.1"),
                Version(kind=VersionKind.RUNNING, name="fw.mgmt", value="2"),
                Version(kind=VersionKind.STORED, name="fw", value="8.0"),
            ),
        )
        assert devlink.ports(NIC) == [
            Port(handle=NIC, index=0, flavour=PortFlavour.PHYSICAL, ifindex=12, ifname="p0", number=0),
            Port(
                handle=NIC,
                index=4,
                flavour=PortFlavour.PCI_VF,
                controller=1,
                pf=0,
                vf=3,
                external=True,
                function=PortFunction(
                    hw_addr=MAC, state=FunctionState.ACTIVE, opstate=FunctionOpstate.DETACHED
                ),
            ),
        ]
        assert devlink.rates() == [
            Rate(
                handle=NIC,
                ref=RateLeaf(port=4),
                tx_share_bps=1000,
                tx_max_bps=1_000_000,
                tx_priority=7,
                tx_weight=9,
            ),
            Rate(handle=NIC, ref=RateNode(name="gold"), tx_max_bps=8, parent="all"),
        ]
        assert devlink.rates(Handle.of("pci/0000:04:00.0")) == []


def test_a_function_of_which_nothing_is_told_is_none_and_a_long_address_no_mac():
    at_port = WHO + u32(3, 4)
    kernel = DevlinkKernel({5: [at_port + nested(145), at_port + nested(145, attribute(1, bytes(20)))]})
    with opened(kernel) as devlink:
        assert [port.function for port in devlink.ports()] == [None, None]


def test_what_a_newer_kernel_knows_is_passed_over():
    kernel = DevlinkKernel(
        {5: [WHO + u32(3, 4) + u16(77, 99) + attribute(999, b"x")], 29: [WHO + u16(25, 7)]}
    )
    with opened(kernel) as devlink:
        assert devlink.ports()[0].flavour is PortFlavour.OTHER
        assert devlink.eswitch(NIC).mode is None


def test_what_is_set_goes_on_the_wire_in_devlink_s_numbers_and_units():
    kernel = DevlinkKernel({})
    change = RateChange(tx_share_bps=8, tx_max_bps=10**10, tx_priority=1, tx_weight=2, parent="gold")
    rate = u64(166, 1) + u64(167, 1_250_000_000) + u32(177, 1) + u32(178, 2) + text(169, "gold")
    with opened(kernel) as devlink:
        devlink.set_eswitch(
            NIC, mode=EswitchMode.LEGACY, inline_mode=InlineMode.TRANSPORT, encap_mode=EncapMode.NONE
        )
        devlink.set_function(NIC, 4, hw_addr=MAC, state=FunctionState.INACTIVE)
        devlink.set_rate(NIC, RateLeaf(port=4), change)
        devlink.create_node(NIC, RateNode(name="n"), RateChange(tx_max_bps=0))
        devlink.set_rate(NIC, RateNode(name="n"), RateChange(parent=""))
        devlink.delete_node(NIC, RateNode(name="n"))
    function = nested(145, attribute(1, MAC.to_bytes(6, "big")), u8(2, 0))
    assert kernel.said == [
        (30, 5, WHO + u16(25, 0) + u8(26, 3) + u8(62, 0)),
        (6, 5, WHO + u32(3, 4) + function),
        (75, 5, WHO + u32(3, 4) + rate),
        (76, 0x605, WHO + text(168, "n") + u64(167, 0)),
        (75, 5, WHO + text(168, "n") + text(169, "")),
        (77, 5, WHO + text(168, "n")),
    ]


def test_a_refusal_has_the_kernel_s_words_the_device_and_its_errno():
    kernel = DevlinkKernel(refusals={30: (errno.EBUSY, "Rate node(s) exists.")})
    with opened(kernel) as devlink, pytest.raises(DeviceBusyError, match=r"Rate node\(s\) exists") as refused:
        devlink.set_eswitch(NIC, mode=EswitchMode.LEGACY)
    assert (refused.value.device, refused.value.errno) == (str(NIC), errno.EBUSY)
    kernel = DevlinkKernel(refusals={75: (errno.EOPNOTSUPP, "TX weight set not supported")})
    with opened(kernel) as devlink, pytest.raises(NotSupportedError) as unsupported:
        devlink.set_rate(NIC, RateLeaf(port=1), RateChange(tx_weight=1))
    assert unsupported.value.capability == "devlink.rate"
    assert unsupported.value.reasons[0].message == "TX weight set not supported"


def test_no_such_device_means_a_part_where_the_device_answers():
    missing = {74: (errno.ENODEV, ""), 51: (errno.ENODEV, "")}
    with opened(DevlinkKernel(refusals=missing)) as devlink:
        with pytest.raises(NotFoundError):
            devlink.rate(NIC, RateNode(name="n"))
        with pytest.raises(DeviceGoneError):
            devlink.info(NIC)
    with (
        opened(DevlinkKernel(refusals={**missing, 1: (errno.ENODEV, "")})) as devlink,
        pytest.raises(DeviceGoneError),
    ):
        devlink.rate(NIC, RateNode(name="n"))


@pytest.mark.parametrize(
    "answer",
    [b"", text(1, "pci"), WHO, WHO + u16(165, 1), WHO + u16(165, 1) + text(168, "7"), WHO + u8(165, 1)],
)
def test_a_message_that_breaks_the_format_is_an_error_of_ours(answer):
    with opened(DevlinkKernel({74: [answer]})) as devlink, pytest.raises(MalformedError):
        devlink.rates()


def test_an_acknowledgement_without_an_answer_is_an_error():
    with opened(DevlinkKernel()) as devlink, pytest.raises(KernelError, match="without an answer"):
        devlink.eswitch(NIC)


@given(data=st.binary(max_size=200))
def test_no_bytes_break_a_decoder(data):
    for decoder in (decode.eswitch, decode.port, decode.rate):
        with contextlib.suppress(MalformedError):
            decoder(parse(data))
    with contextlib.suppress(MalformedError):
        decode.info(b"\0\0\0\0" + data)


@given(bytes_per_s=st.integers(0, 2**64 - 1), rest=st.integers(1, 7))
def test_bits_and_bytes_convert_exactly_or_not_at_all(bytes_per_s, rest):
    assert values.to_bytes_per_s(values.to_bits_per_s(bytes_per_s)) == bytes_per_s
    with pytest.raises(InvalidRequestError):
        RateChange(tx_max_bps=8 * bytes_per_s + rest)


def test_a_rate_of_a_broken_byte_names_its_neighbours():
    with pytest.raises(InvalidRequestError) as refused:
        RateChange(tx_share_bps=1_000_001)
    assert refused.value.path == "/tx_share_bps"
    assert refused.value.hint == "take 1000000 or 1000008"


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateChange(tx_max_bps=-8),
        lambda: RateChange(tx_max_bps=2**67),
        lambda: RateChange(tx_share_bps=16, tx_max_bps=8),
        lambda: RateChange(tx_priority=2**32),
        lambda: RateChange(tx_weight=-1),
        lambda: RateChange(parent="12"),
        lambda: RateNode(name=""),
        lambda: RateNode(name="12"),
        lambda: RateNode(name="a/b"),
        lambda: RateNode(name="a b"),
        lambda: RateLeaf(port=-1),
        lambda: Handle.of("0000:03:00.0"),
        lambda: Handle.of("pci/0000:03:00.0/1"),
        lambda: Handle(bus="", name="x"),
    ],
)
def test_what_is_no_request_is_refused_before_the_kernel_is_asked(make):
    with pytest.raises(InvalidRequestError):
        make()


def test_an_empty_change_or_a_group_s_address_is_refused():
    kernel = DevlinkKernel()
    with opened(kernel) as devlink:
        for call in (
            lambda: devlink.set_eswitch(NIC),
            lambda: devlink.set_function(NIC, 1),
            lambda: devlink.set_function(NIC, 1, hw_addr=0x01_00_00_00_00_01),
            lambda: devlink.set_function(NIC, 1, hw_addr=2**48),
            lambda: devlink.set_rate(NIC, RateLeaf(port=1), RateChange()),
        ):
            with pytest.raises(InvalidRequestError):
                call()
    assert kernel.said == []


def test_commands_say_the_same():
    node, leaf = RateNode(name="gold"), RateLeaf(port=3)
    change = RateChange(tx_share_bps=8, tx_max_bps=10**9, tx_priority=1, tx_weight=2, parent="gold")
    assert eswitch_command(
        NIC, mode=EswitchMode.SWITCHDEV, inline_mode=InlineMode.NETWORK, encap_mode=EncapMode.BASIC
    ) == ("devlink dev eswitch set pci/0000:03:00.0 mode switchdev inline-mode network encap-mode basic")
    assert function_command(NIC, 3, hw_addr=MAC, state=FunctionState.ACTIVE) == (
        "devlink port function set pci/0000:03:00.0/3 hw_addr 02:00:00:00:00:07 state active"
    )
    assert rate_command(NIC, leaf, change) == (
        "devlink port function rate set pci/0000:03:00.0/3 "
        "tx_share 8bit tx_max 1000000000bit tx_priority 1 tx_weight 2 parent gold"
    )
    assert rate_command(NIC, leaf, RateChange(parent="")).endswith("/3 noparent")
    assert create_node_command(NIC, node) == "devlink port function rate add pci/0000:03:00.0/gold"
    assert delete_node_command(NIC, node) == "devlink port function rate del pci/0000:03:00.0/gold"
