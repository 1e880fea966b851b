"""Features and modes of the NIC's own switch, against a driver and a kernel of a few lines."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import DeviceGoneError, InvalidRequestError, NotSupportedError, VerificationError
from nicoffload.kernel.attributes import MalformedError, nested, text, u16
from nicoffload.kernel.bridge import HwMode, hwmode_command, read_hwmode, set_hwmode
from nicoffload.kernel.features import FeatureName, feature_command, read_feature, read_features, set_feature
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from tests.kernel.scripted import ScriptedKernel, error, message

NAMES = ["tx-checksum", *("" for _ in range(31)), "hw-tc-offload", "rx-ntuple-filter", "l2-fwd-offload"]
TC, NTUPLE, L2 = 32, 33, 34


class Features(LinuxKernel):
    """A driver's features.

    Args:
        available: Places that can change.
        never: Places that the kernel itself fixes.
        stubborn: Places whose change the driver refuses: the wish is noted, as in Linux, and no errno comes.
    """

    def __init__(self, available=(TC,), never=(), stubborn=()) -> None:
        super().__init__("/nonexistent")
        self.available, self.never, self.stubborn = set(available), set(never), set(stubborn)
        self.requested: set[int] = set()
        self.active: set[int] = set()
        self.changes: list[tuple[int, bool]] = []

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        if ifname != "nic":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        [command] = struct.unpack_from("=I", buffer)
        if command == 0x37:
            assert struct.unpack_from("=Q", buffer, 8) == (16,)
            return buffer[:16] + struct.pack("=I", len(NAMES))
        if command == 0x1B:
            assert struct.unpack_from("=II", buffer, 4) == (4, len(NAMES))
            return buffer[:12] + b"".join(name.encode().ljust(32, b"\0") for name in NAMES)
        if command == 0x3A:
            assert struct.unpack_from("=I", buffer, 4) == (2,)
            sets = (self.available, self.requested, self.active, self.never)
            words = [sum(1 << p % 32 for p in one if p // 32 == block) for block in (0, 1) for one in sets]
            return buffer[:8] + struct.pack("=8I", *words)
        if command == 0x2E:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        assert command == 0x3B
        assert struct.unpack_from("=I", buffer, 4) == (2,)
        for block in (0, 1):
            valid, on = struct.unpack_from("=II", buffer, 8 + 8 * block)
            for place in (32 * block + bit for bit in range(32) if valid >> bit & 1):
                self._change(place, on=bool(on >> place % 32 & 1))
        return buffer

    def _change(self, place: int, *, on: bool) -> None:
        assert place in self.available
        self.changes.append((place, on))
        for state in (self.requested, self.active):
            if state is self.requested or place not in self.stubborn:
                (state.add if on else state.discard)(place)


def test_a_feature_is_turned_on_and_off_and_the_others_are_left_alone():
    driver = Features(available={0, TC, NTUPLE})
    for on in (True, False):
        set_feature(driver, "nic", FeatureName.HW_TC_OFFLOAD, on=on)
        assert read_feature(driver, "nic", FeatureName.HW_TC_OFFLOAD).active is on
    set_feature(driver, "nic", FeatureName.NTUPLE, on=True)
    set_feature(driver, "nic", FeatureName.NTUPLE, on=True)
    assert driver.changes == [(TC, True), (TC, False), (NTUPLE, True)]


def test_free_places_have_no_feature_and_fixed_has_two_causes():
    found = read_features(Features(available={0, TC}, never={TC}), "nic")
    assert [(one.name, one.fixed) for one in found] == [
        ("tx-checksum", False),
        ("hw-tc-offload", True),
        ("rx-ntuple-filter", True),
        ("l2-fwd-offload", True),
    ]


def test_a_fixed_feature_is_not_asked_for():
    driver = Features()
    with pytest.raises(NotSupportedError) as refused:
        set_feature(driver, "nic", FeatureName.NTUPLE, on=True)
    assert refused.value.capability == "features.rx-ntuple-filter"
    assert "fixed off" in str(refused.value.reasons[0])
    set_feature(driver, "nic", FeatureName.NTUPLE, on=False)
    assert driver.changes == []


def test_a_wish_that_the_driver_does_not_fulfil_is_no_success():
    driver = Features(stubborn={TC})
    with pytest.raises(VerificationError) as refused:
        set_feature(driver, "nic", FeatureName.HW_TC_OFFLOAD, on=True)
    assert (refused.value.expected, refused.value.actual, refused.value.device) == ("on", "off", "nic")
    # The wish stands in the kernel: taking it back is a change, although nothing is on.
    set_feature(driver, "nic", FeatureName.HW_TC_OFFLOAD, on=False)
    assert driver.changes == [(TC, True), (TC, False)]


def test_a_device_that_is_gone_says_so():
    with pytest.raises(DeviceGoneError):
        read_features(Features(), "gone")


def test_a_kernel_that_claims_a_million_features_is_not_believed():
    class Liar(Features):
        def ethtool(self, ifname: str, buffer: bytes) -> bytes:
            return buffer[:16] + struct.pack("=I", 1_000_000)

    with pytest.raises(MalformedError):
        read_features(Liar(), "nic")


def test_a_kernel_without_names_knows_no_feature():
    class Old(Features):
        def ethtool(self, ifname: str, buffer: bytes) -> bytes:
            return buffer[:8] + bytes(12) if buffer[0] == 0x37 else super().ethtool(ifname, buffer)

    with pytest.raises(NotSupportedError, match="hw-tc-offload"):
        set_feature(Old(), "nic", FeatureName.HW_TC_OFFLOAD, on=True)


def test_commands_of_features_and_modes():
    assert feature_command("nic", FeatureName.NTUPLE, on=True) == "ethtool -K nic ntuple on"
    assert feature_command("nic", FeatureName.L2_FWD_OFFLOAD, on=False) == "ethtool -K nic l2-fwd-offload off"
    assert hwmode_command("nic", HwMode.VEPA) == "bridge link set dev nic hwmode vepa"


def link(ifindex: int, *attributes: bytes) -> bytes:
    return struct.pack("=BxHiII", 7, 1, ifindex, 0, 0) + b"".join(attributes)


def answering(*links: bytes, refuse: int = 0) -> tuple[ScriptedKernel, list[bytes]]:
    sent: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        sent.append(data)
        sequence = struct.unpack_from("=I", data, 8)[0]
        if struct.unpack_from("=H", data, 4) == (18,):
            whole = b"".join(message(16, 2, sequence, one) for one in links)
            return [whole + message(3, 2, sequence, struct.pack("=i", 0))]
        return [error(refuse, sequence)]

    return ScriptedKernel(answer), sent


@pytest.mark.parametrize(("number", "mode"), [(0, HwMode.VEB), (1, HwMode.VEPA), (2, None)])
def test_the_mode_is_that_of_the_asked_device(number, mode):
    kernel, _ = answering(
        link(4, nested(26, u16(1, 1 - number % 2))),
        link(5, text(3, "nic")),  # from the bridge that it is a port of
        link(5, text(3, "nic"), nested(26, u16(1, number))),
    )
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        assert read_hwmode(netlink, 5) is mode
        assert read_hwmode(netlink, 6) is None


def test_the_mode_is_set_at_the_device_itself_and_not_at_its_bridge():
    kernel, sent = answering()
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        set_hwmode(netlink, 5, HwMode.VEPA)
    [data] = sent
    assert struct.unpack_from("=IHH", data) == (len(data), 19, 5)
    assert data[16:] == struct.pack("=BxHiII", 7, 0, 5, 0, 0) + nested(26, u16(0, 2), u16(1, 1))


def test_a_refused_mode_is_not_supported_and_no_number_of_a_device_is_refused():
    kernel, sent = answering(refuse=errno.EOPNOTSUPP)
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        with pytest.raises(NotSupportedError):
            set_hwmode(netlink, 5, HwMode.VEB)
        for ifindex in (0, -1, 1 << 31):
            with pytest.raises(InvalidRequestError):
                set_hwmode(netlink, ifindex, HwMode.VEB)
    assert len(sent) == 1


@given(data=st.binary(max_size=80))
def test_no_answer_breaks_the_reader_of_modes(data):
    kernel, _ = answering(data)
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        try:
            assert read_hwmode(netlink, 5) in {None, *HwMode}
        except MalformedError as refused:
            assert refused.message  # noqa: PT017  (either outcome is right)
