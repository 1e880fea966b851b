"""SR-IOV, drivers and resets in sysfs, and that nothing is written that would wait for a VM."""

from __future__ import annotations

import errno
import os

import pytest

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.kernel.binding import Binding
from nicoffload.kernel.holders import Holder, find_holders
from nicoffload.kernel.link import read_speed_bps
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.seam import OpenFiles
from nicoffload.kernel.sriov import Sriov
from tests.kernel.fake_pci import PF, FakePci
from tests.kernel.recording import refusal


@pytest.fixture
def pci(tmp_path) -> FakePci:
    return FakePci(tmp_path / "sys")


def hold(pci, address):
    """Let a process have a function open."""
    group = (pci.devices / address / "iommu_group").resolve().name
    pci.processes = [OpenFiles(pid=42, name="qemu", files=frozenset({f"/dev/vfio/{group}"}))]


def sriov(pci) -> Sriov:
    return Sriov(pci, PF)


def numbers_written(pci) -> list[bytes]:
    return [data for path, data in pci.written if path.endswith("sriov_numvfs")]


def test_vfs_come_and_go_with_zero_in_between(pci):
    ours = sriov(pci)
    assert ours.set_vfs(7) == tuple(pci.vf(number) for number in range(7))
    assert ours.set_vfs(7) == tuple(pci.vf(number) for number in range(7))
    assert len(ours.set_vfs(3)) == 3
    assert ours.set_vfs(0) == ()
    assert numbers_written(pci) == [b"7", b"0", b"3", b"0"]


def test_the_state_is_total_autoprobe_and_vfs(pci):
    ours = sriov(pci)
    ours.set_autoprobe(on=False)
    ours.set_vfs(1)
    state = ours.state()
    assert (state.total, state.autoprobe, state.vfs) == (7, False, (pci.vf(0),))
    assert PciFunction(pci, pci.vf(0)).driver() == ""


@pytest.mark.parametrize(("count", "number"), [(8, errno.ERANGE), (-1, errno.EINVAL)])
def test_a_wrong_number_is_refused_before_anything_is_written(pci, count, number):
    sriov(pci).set_vfs(2)
    with pytest.raises(InvalidRequestError, match="0 to 7") as refused:
        sriov(pci).set_vfs(count)
    assert refused.value.errno == number
    assert numbers_written(pci) == [b"2"]


def test_vfs_that_somebody_holds_are_not_removed_and_it_says_who(pci):
    sriov(pci).set_vfs(3)
    Binding(pci, pci.vf(1)).give_to("vfio-pci")
    hold(pci, pci.vf(1))
    for count in (0, 5):
        with pytest.raises(DeviceBusyError, match=r"0000:01:10.1 is held by qemu \(42\)"):
            sriov(pci).set_vfs(count)
    assert numbers_written(pci) == [b"3"]
    assert len(sriov(pci).set_vfs(3)) == 3


def test_a_driver_that_says_yes_and_does_nothing_is_found_out(pci):
    pci.obeys = False
    with pytest.raises(VerificationError) as refused:
        sriov(pci).set_vfs(2)
    assert (refused.value.expected, refused.value.actual) == ("2", "0")


def test_when_new_vfs_are_refused_the_error_says_that_the_old_ones_are_gone(pci, monkeypatch):
    sriov(pci).set_vfs(2)
    plain = pci.write_sysfs

    def refuse(path, data):
        if data == b"4":
            raise refusal(errno.ENOMEM)
        plain(path, data)

    monkeypatch.setattr(pci, "write_sysfs", refuse)
    with pytest.raises(Exception, match="ENOMEM") as refused:
        sriov(pci).set_vfs(4)
    assert "2 VFs there were are gone" in refused.value.hint


def test_a_function_without_sr_iov_says_so(pci):
    (pci.devices / PF / "sriov_totalvfs").unlink()
    with pytest.raises(NotSupportedError) as refused:
        sriov(pci).state()
    assert refused.value.capability == "sriov"
    with pytest.raises(DeviceGoneError):
        Sriov(pci, "0000:09:00.0").state()


def test_a_number_that_is_none_is_not_believed(pci):
    pci.put(PF, "sriov_totalvfs", "many")
    with pytest.raises(KernelError, match="no number"):
        sriov(pci).state()


def test_a_vf_knows_its_function_and_its_number(pci):
    sriov(pci).set_vfs(3)
    vf = PciFunction(pci, pci.vf(2))
    assert (vf.physical_function(), vf.vf_index()) == (PF, 2)
    physical = PciFunction(pci, PF)
    assert (physical.physical_function(), physical.vf_index()) == ("", None)


def test_group_and_node_are_none_where_there_is_none(pci):
    ours = PciFunction(pci, PF)
    group = ours.iommu_group()
    assert group is not None
    assert (group.number, group.members) == (1, (PF,))
    assert ours.numa_node() is None
    pci.put(PF, "numa_node", "1")
    (pci.devices / PF / "iommu_group").unlink()
    assert ours.numa_node() == 1
    assert ours.iommu_group() is None


def test_a_vf_goes_to_vfio_and_back(pci):
    sriov(pci).set_vfs(1)
    vf = Binding(pci, pci.vf(0))
    vf.give_to("vfio-pci")
    vf.give_to("vfio-pci")
    assert (vf.driver(), vf.override()) == ("vfio-pci", "vfio-pci")
    assert vf.give_back() == "igbvf"
    assert vf.give_back() == "igbvf"
    assert vf.override() == ""
    assert pci.written[-2:] == [
        (f"bus/pci/devices/{pci.vf(0)}/driver_override", b"\n"),
        ("bus/pci/drivers_probe", pci.vf(0).encode()),
    ]


def test_a_driver_that_does_not_take_the_function_leaves_it_where_it_was(pci):
    sriov(pci).set_vfs(1)
    vf = Binding(pci, pci.vf(0))
    with pytest.raises(VerificationError, match="no driver has the function"):
        vf.give_to("igb")
    assert (vf.driver(), vf.override()) == ("igbvf", "")


def test_a_group_that_a_host_driver_has_a_part_of_goes_not_to_vfio(pci):
    sriov(pci).set_vfs(2)
    vf = Binding(pci, pci.vf(0))
    members = pci.root / "kernel/iommu_groups/2/devices"
    group = (pci.devices / pci.vf(0) / "iommu_group").resolve() / "devices"
    assert members.parent.exists()
    (group / pci.vf(1)).symlink_to(pci.devices / pci.vf(1))
    written = len(pci.written)
    with pytest.raises(ConflictError, match=f"igbvf has {pci.vf(1)}"):
        vf.give_to("vfio-pci")
    assert (len(pci.written), vf.driver()) == (written, "igbvf")
    Binding(pci, pci.vf(1)).unbind()
    vf.give_to("vfio-pci")
    assert vf.driver() == "vfio-pci"


def test_what_fails_while_it_is_undone_hides_neither_the_first_error_nor_the_old_driver(pci, monkeypatch):
    sriov(pci).set_vfs(1)
    vf = Binding(pci, pci.vf(0))
    write = pci.write_sysfs

    def failing(path, data):
        if path.endswith("driver_override") and not data.strip():
            raise refusal(errno.ENOMEM)
        if path.endswith("drivers_probe") and pci.holds(pci.vf(0), "driver_override") == "igb":
            pci.put(pci.vf(0), "driver_override", "igbvf")  # so that the second probe finds a driver
            return
        write(path, data)

    monkeypatch.setattr(pci, "write_sysfs", failing)
    with pytest.raises(VerificationError, match="no driver has the function") as caught:
        vf.give_to("igb")
    assert any("override" in note for note in caught.value.__notes__)
    assert vf.driver() == "igbvf"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_what_can_not_be_read_is_neither_gone_nor_without_driver(pci, monkeypatch, number):
    def refuse(_path):
        raise refusal(number)

    monkeypatch.setattr(pci, "list_sysfs", refuse)
    monkeypatch.setattr(pci, "readlink_sysfs", refuse)
    for call in (PciFunction(pci, PF).exists, PciFunction(pci, PF).driver):
        with pytest.raises(NicOffloadError) as caught:
            call()
        assert not isinstance(caught.value, DeviceGoneError)
        assert caught.value.errno == number


@pytest.mark.parametrize(
    ("number", "speed"), [(errno.EINVAL, 0), (errno.EMFILE, None), (errno.EOPNOTSUPP, None)]
)
def test_only_a_link_that_is_down_has_no_speed(pci, monkeypatch, number, speed):
    def refuse(_path):
        raise refusal(number)

    monkeypatch.setattr(pci, "read_sysfs", refuse)
    assert read_speed_bps(pci, "eth0") == speed


def test_a_function_that_somebody_holds_keeps_its_driver(pci):
    sriov(pci).set_vfs(1)
    Binding(pci, pci.vf(0)).give_to("vfio-pci")
    written = len(pci.written)
    hold(pci, pci.vf(0))
    vf = Binding(pci, pci.vf(0))
    for call in (
        vf.unbind,
        vf.give_back,
        lambda: vf.give_to("igbvf"),
        PciFunction(pci, PF).reset,
    ):
        with pytest.raises(DeviceBusyError, match="qemu"):
            call()
    with pytest.raises(DeviceBusyError, match="qemu"):  # its VF goes with it
        Binding(pci, PF).unbind()
    assert len(pci.written) == written


def test_bind_and_unbind_by_name(pci):
    ours = Binding(pci, PF)
    with pytest.raises(InvalidRequestError, match="does not take"):
        ours.bind("igbvf")
    ours.unbind()
    ours.unbind()
    assert ours.driver() == ""
    ours.bind("igb")
    ours.bind("igb")
    assert ours.driver() == "igb"


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_what_is_no_name_is_refused(pci, name):
    with pytest.raises(InvalidRequestError, match="no name of a driver"):
        Binding(pci, PF).bind(name)


def test_an_absent_driver_is_not_found_and_what_is_bound_stays(pci):
    with pytest.raises(NotFoundError, match="no driver vfio-absent") as refused:
        Binding(pci, PF).give_to("vfio-absent")
    assert refused.value.hint == "modprobe vfio-absent"
    assert Binding(pci, PF).driver() == "igb"


def test_an_absent_function_is_gone(pci):
    absent = Binding(pci, "0000:09:00.0")
    with pytest.raises(DeviceGoneError):
        absent.bind("igb")
    with pytest.raises(DeviceGoneError):
        absent.give_to("vfio-pci")
    with pytest.raises(DeviceGoneError):
        PciFunction(pci, "0000:09:00.0").virtual_functions()


def test_a_reset_is_of_one_function_and_leaves_the_methods_as_they_were(pci):
    ours = PciFunction(pci, PF)
    with pytest.raises(DeviceBusyError, match="the driver igb has"):
        ours.reset()
    assert pci.written == []
    Binding(pci, PF).unbind()
    pci.written.clear()
    ours.reset()
    pci.put(PF, "reset_method", "bus af_flr")
    ours.reset()
    folder = f"bus/pci/devices/{PF}"
    assert pci.written == [
        (f"{folder}/reset", b"1"),
        (f"{folder}/reset_method", b"af_flr"),
        (f"{folder}/reset", b"1"),
        (f"{folder}/reset_method", b"bus af_flr"),
    ]
    pci.put(PF, "reset_method", "bus")
    with pytest.raises(NotSupportedError, match="resetting one function") as refused:
        ours.reset()
    assert "only bus" in refused.value.reasons[0].message


def test_what_may_not_be_written_is_denied(pci, monkeypatch):
    def deny(path, data):
        raise refusal(errno.EACCES)

    monkeypatch.setattr(pci, "write_sysfs", deny)
    with pytest.raises(AccessDeniedError):
        PciFunction(pci, PF).write("sriov_totalvfs", "1", capability="sriov")


@pytest.mark.parametrize("address", ["eth0", "01:00.0", "0000:01:00.8", "0000:01:00.0/../x", ""])
def test_what_is_no_address_is_refused(pci, address):
    with pytest.raises(InvalidRequestError, match="no PCI address"):
        PciFunction(pci, address)


@pytest.fixture
def on_vfio(pci) -> FakePci:
    sriov(pci).set_vfs(2)
    Binding(pci, pci.vf(1)).give_to("vfio-pci")
    return pci


class OverProc(LinuxKernel):
    """A kernel whose processes are in folders, and whose device files are there or not, or open."""

    def __init__(self, pci, root) -> None:
        super().__init__(pci.root, proc=root / "proc", dev=root / "dev")
        self.proc, self.dev = root / "proc", root / "dev"

    def process(self, pid, *targets, name="qemu"):
        folder = self.proc / str(pid) / "fd"
        folder.mkdir(parents=True)
        (folder.parent / "comm").write_text(name + "\n", "ascii")
        for number, target in enumerate(targets):
            (folder / str(number)).symlink_to(target)

    def holders(self, monkeypatch, pci, *, busy=False):
        opened = os.open

        def open_group(path, flags, *rest, **more):
            if str(path).startswith(str(self.dev)):
                raise refusal(errno.EBUSY if busy else errno.ENOENT)
            return opened(path, flags, *rest, **more)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", open_group)
            return find_holders(self, [PF, pci.vf(0), pci.vf(1)])


@pytest.fixture
def over_proc(on_vfio, tmp_path) -> OverProc:
    return OverProc(on_vfio, tmp_path)


def test_the_holder_is_who_has_the_group_open(on_vfio, over_proc, monkeypatch):
    over_proc.process(7, "/dev/null", "/dev/vfio/3")
    over_proc.process(8, "/dev/vfio/2", "/dev/vfio/vfio", name="other")
    (over_proc.proc / "self").mkdir()
    (over_proc.proc / "9").mkdir()
    [holder] = over_proc.holders(monkeypatch, on_vfio)
    assert holder == Holder(address=on_vfio.vf(1), pid=7, name="qemu")


def test_the_holder_is_who_has_the_device_file_open(on_vfio, over_proc, monkeypatch):
    (on_vfio.devices / on_vfio.vf(1) / "vfio-dev/vfio0").mkdir(parents=True)
    over_proc.process(7, "/dev/vfio/devices/vfio0")
    assert [holder.pid for holder in over_proc.holders(monkeypatch, on_vfio)] == [7]


def test_a_group_that_is_open_without_a_name_is_held_by_who_has_a_device_without_a_group(
    on_vfio, over_proc, monkeypatch
):
    over_proc.process(7, "anon_inode:[vfio-device]")
    over_proc.process(8, "anon_inode:[vfio-device]", "/dev/vfio/77")
    assert over_proc.holders(monkeypatch, on_vfio) == []
    assert [holder.pid for holder in over_proc.holders(monkeypatch, on_vfio, busy=True)] == [7]


def test_a_group_that_is_open_to_nobody_in_sight_is_held_all_the_same(on_vfio, over_proc, monkeypatch):
    over_proc.proc.mkdir()
    [holder] = over_proc.holders(monkeypatch, on_vfio, busy=True)
    assert holder.pid is None
    assert "can't be seen" in str(holder)


def test_nobody_is_looked_for_where_nothing_is_on_vfio(pci):
    sriov(pci).set_vfs(2)
    assert find_holders(LinuxKernel(pci.root, proc="/nonexistent"), [PF, pci.vf(0)]) == []
