"""Leases: one holder a VF, epochs that only grow, and late clean-ups that touch nothing."""

from __future__ import annotations

import dataclasses
import multiprocessing

import pytest
from fake_driver import FakeDriver, FakeFactory

from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.nic import open_nic
from nicoffload.registry import Registry


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def driver(request, tmp_path):
    return FakeDriver(path=tmp_path / "nic" if request.param else None)


def test_lease_renew_release(open_fake, driver, clock):
    nic = open_fake(driver)
    lease = nic.lease_vf("vm-a", ttl_s=60)
    assert (lease.vf, lease.owner, lease.expires_at_s) == (0, "vm-a", clock.now_s + 60)
    assert nic.leases() == (lease,)
    assert driver.hardware.resets[0] == 0, "nobody had it before"
    clock.now_s += 50
    renewed = nic.renew_lease(lease, 60)
    assert renewed.epoch == lease.epoch
    clock.now_s += 50
    assert nic.leases() == (renewed,)
    assert nic.release_vf(renewed)
    assert driver.hardware.resets[0] == 1, "reset before anybody else can have it"
    assert nic.leases() == ()
    again = nic.release_vf(renewed)
    assert not again
    assert "was over before; the VF is free" in again.detail
    assert driver.hardware.resets[0] == 1


def test_epochs_grow_and_are_never_given_twice(open_fake, driver, clock):
    nic = open_fake(driver)
    epochs = []
    for _ in range(5):
        lease = nic.lease_vf("vm", ttl_s=10, vf=1)
        epochs.append(lease.epoch)
        nic.release_vf(lease)
        clock.now_s -= 1000  # a clock that is set back changes nothing
    assert epochs == sorted(set(epochs))
    assert epochs[1] == epochs[0] + 1


def test_an_expired_lease_is_reclaimed_after_a_reset_and_the_old_owner_is_fenced(open_fake, driver, clock):
    nic = open_fake(driver)
    old = nic.lease_vf("vm-a", ttl_s=10, vf=2)
    with pytest.raises(ConflictError, match="VF 2 by vm-a"):
        nic.lease_vf("vm-b", ttl_s=10, vf=2)
    clock.now_s += 10
    assert nic.leases() == ()
    new = nic.lease_vf("vm-b", ttl_s=10, vf=2)
    assert new.epoch > old.epoch
    assert driver.hardware.resets[2] == 1
    late = nic.release_vf(old)
    assert not late
    assert "vm-b holds the VF" in late.detail
    assert driver.hardware.resets[2] == 1
    with pytest.raises(ConflictError, match="vm-b"):
        nic.renew_lease(old, 10)
    assert nic.leases() == (new,)
    assert not nic.release_vf(dataclasses.replace(new, owner="vm-a")), "an epoch alone is no claim"


def test_an_old_lease_of_the_same_owner_is_as_dead_as_that_of_another(open_fake, driver, clock):
    nic = open_fake(driver)
    old = nic.lease_vf("vm-a", ttl_s=10, vf=0)
    clock.now_s += 11
    new = nic.lease_vf("vm-a", ttl_s=10, vf=0)
    resets = driver.hardware.resets[0]
    assert not nic.release_vf(old)
    with pytest.raises(ConflictError):
        nic.renew_lease(old, 10)
    assert nic.leases() == (new,)
    assert driver.hardware.resets[0] == resets


def test_an_expired_lease_that_nobody_took_can_be_renewed(open_fake, driver, clock):
    nic = open_fake(driver)
    lease = nic.lease_vf("vm-a", ttl_s=10)
    clock.now_s += 100
    assert nic.renew_lease(lease, 10).expires_at_s == clock.now_s + 10


def test_all_leased(open_fake, driver, clock):
    nic = open_fake(driver)
    assert {nic.lease_vf(f"vm-{n}", ttl_s=10).vf for n in range(4)} == {0, 1, 2, 3}
    with pytest.raises(ResourceExhaustedError, match="VF 3 by vm-3") as caught:
        nic.lease_vf("late", ttl_s=10)
    assert caught.value.limit == 4
    clock.now_s += 11
    assert nic.lease_vf("late", ttl_s=10).vf == 0


def test_a_free_vf_comes_before_one_that_has_to_be_reset(open_fake, driver, clock):
    nic = open_fake(driver)
    nic.lease_vf("vm-a", ttl_s=10)
    clock.now_s += 11
    assert nic.lease_vf("vm-b", ttl_s=10).vf == 1


@pytest.mark.parametrize(
    ("owner", "ttl_s", "vf", "error"),
    [
        ("", 10, None, InvalidRequestError),
        ("a", 0, None, InvalidRequestError),
        ("a", -1, None, InvalidRequestError),
        ("a", float("nan"), None, InvalidRequestError),
        ("a", float("inf"), None, InvalidRequestError),
        ("a", 10, 4, NotFoundError),
        ("a", 10, -1, NotFoundError),
    ],
)
def test_a_lease_that_can_not_be(open_fake, driver, owner, ttl_s, vf, error):
    nic = open_fake(driver)
    with pytest.raises(error):
        nic.lease_vf(owner, ttl_s=ttl_s, vf=vf)
    assert nic.leases() == ()


def test_a_vf_that_can_not_be_reset_stays_with_its_owner(open_fake, driver):
    nic = open_fake(driver)
    lease = nic.lease_vf("vm-a", ttl_s=10)
    driver.faults.fail_at(len(driver.faults.calls), KernelError("no"))
    with pytest.raises(KernelError):
        nic.release_vf(lease)
    assert nic.leases() == (lease,)
    assert nic.release_vf(lease)


@pytest.mark.parametrize("address", ["", "0000:03:10.0"])
def test_a_vf_without_a_function_is_given_back_without_a_reset_and_one_with_a_function_is_not(
    open_fake, driver, address
):
    driver.hardware.vfs[0] = dataclasses.replace(driver.hardware.vfs[0], pci_address=address)
    driver.store.save()
    nic = open_fake(driver)
    lease = nic.lease_vf("vm-a", ttl_s=10, vf=0)
    reason = Reason(code="vf.no_reset", path="/vf", message="there is no way")
    error = NotSupportedError("it can't be reset", capability="vf.reset", reasons=[reason])
    driver.faults.fail_at(len(driver.faults.calls), error)
    if address:
        with pytest.raises(NotSupportedError) as told:
            nic.release_vf(lease)
        assert "anew" in told.value.hint
        assert nic.leases() == (lease,)
    else:
        released = nic.release_vf(lease)
        assert released
        assert "was not reset: it can't be reset" in released.detail
        assert nic.leases() == ()
        assert nic.lease_vf("vm-b", ttl_s=10, vf=0).epoch > lease.epoch


def stuck_nic(open_fake, driver, clock):
    """Return a NIC whose VF 0 was leased, and could not be reset for the next one."""
    nic = open_fake(driver)
    nic.lease_vf("vm-a", ttl_s=10, vf=0)
    clock.now_s += 11
    driver.faults.fail_at(len(driver.faults.calls), KernelError("no"))
    with pytest.raises(KernelError):
        nic.lease_vf("vm-b", ttl_s=10, vf=0)
    return nic


def test_a_vf_that_can_not_be_reset_keeps_nobody_from_the_others(open_fake, driver, clock):
    nic = stuck_nic(open_fake, driver, clock)
    others = len(nic.vfs()) - 1
    assert [nic.lease_vf("vm", ttl_s=10).vf for _ in range(others)] == list(range(1, others + 1))
    for _ in range(2):  # alone it is tried, and its error told
        driver.faults.fail_at(len(driver.faults.calls), KernelError("still no"))
        with pytest.raises(KernelError, match="still no"):
            nic.lease_vf("vm", ttl_s=10)
    assert nic.lease_vf("vm", ttl_s=10).vf == 0


def test_a_vf_that_can_not_be_reset_is_given_to_nobody(open_fake, driver, clock):
    nic = stuck_nic(open_fake, driver, clock)
    assert nic.leases() == ()
    nic.lease_vf("vm-c", ttl_s=10, vf=0)
    assert driver.hardware.resets[0] == 1, "the reset was made up for"


def test_leases_outlive_the_process_and_so_do_epochs(open_fake, tmp_path, clock):
    driver = FakeDriver(path=tmp_path / "nic")
    first = open_fake(driver)
    lease = first.lease_vf("vm-a", ttl_s=100)
    first.close()
    second = open_fake(driver)
    assert second.leases() == (lease,)
    assert second.release_vf(lease)
    assert second.lease_vf("vm-b", ttl_s=10, vf=0).epoch > lease.epoch


def test_an_epoch_is_not_given_twice_even_when_the_journal_is_lost(open_fake, tmp_path, clock):
    driver = FakeDriver(path=tmp_path / "nic")
    first = open_fake(driver)
    lease = first.lease_vf("vm-a", ttl_s=100, vf=0)
    first.close()
    (tmp_path / "state/journal.sqlite").unlink()
    clock.now_s += 1
    assert open_fake(driver).lease_vf("vm-b", ttl_s=10, vf=0).epoch > lease.epoch


def test_the_next_in_line_is_told_who_is_at_work(open_fake, tmp_path, sleeper):
    driver = FakeDriver(path=tmp_path / "nic")
    first = open_fake(driver, owner="the manager")
    second = open_fake(driver, owner="me", lock_timeout_s=1.0)
    with first._journal.writing(), pytest.raises(DeviceBusyError, match=r"the manager \(pid"):
        second.lease_vf("vm-a", ttl_s=1)
    assert sum(sleeper.slept_s) == pytest.approx(1.0)
    second.lease_vf("vm-a", ttl_s=1)


class Nothing:
    def families(self):
        return ()


def claim(folder, number, start, answers):
    """One process: open the NIC and take a VF."""
    registry = Registry(
        (), Nothing(), [("fake", FakeFactory(lambda: FakeDriver(path=folder / "nic", vfs=20, shared=True)))]
    )
    start.wait()
    with open_nic("fake:0", registry=registry, state_dir=folder / "state", lock_timeout_s=60.0) as nic:
        try:
            lease = nic.lease_vf(f"vm-{number}", ttl_s=3600)
            answers.put((number, lease.vf, lease.epoch))
        except ResourceExhaustedError:
            answers.put((number, None, None))


def test_fifty_processes_never_get_one_vf_twice(tmp_path):
    FakeDriver(path=tmp_path / "nic", vfs=20)
    context = multiprocessing.get_context("fork")
    start, answers = context.Event(), context.Queue()
    processes = [context.Process(target=claim, args=(tmp_path, n, start, answers)) for n in range(50)]
    for process in processes:
        process.start()
    start.set()
    got = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    leased = [vf for _, vf, _ in got if vf is not None]
    assert sorted(leased) == list(range(20))
    assert len(got) == 50
