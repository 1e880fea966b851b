"""Through `open_nic`: who holds a VF, and what becomes of those who hold it no longer."""

from __future__ import annotations

from nicoffload.errors import ConflictError, InvalidRequestError, NotFoundError, ResourceExhaustedError
from nicoffload.testing.conformance.behaviour import behaviour, with_vfs
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.proxy import Between, Strike
from nicoffload.testing.conformance.vf_count import makes_vfs

_TTL_S = 60.0


class Clock:
    """A wall clock that a behaviour moves."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@behaviour("LS-01", "A VF has one holder at a time, and who comes too late learns who", each=with_vfs)
def exclusive(bench: Bench) -> None:
    """All VFs are leased, each once. One more is `ResourceExhaustedError`, and one of them by its number is
    `ConflictError` with the owner's name.
    """
    count = len(bench.need_vfs(1))
    with bench.nic() as nic:
        leases = [nic.lease_vf(f"owner-{number}", ttl_s=_TTL_S) for number in range(count)]
        bench.same(sorted(lease.vf for lease in leases), list(range(count)), "VFs that were given out")
        bench.refuses(
            lambda: nic.lease_vf("late", ttl_s=_TTL_S), ResourceExhaustedError, "one VF more than there are"
        )
        error = bench.refuses(
            lambda: nic.lease_vf("late", ttl_s=_TTL_S, vf=0), ConflictError, "a VF that is leased"
        )
        owner = next(lease.owner for lease in leases if lease.vf == 0)
        bench.expect(owner in str(error), f"the error does not name the owner {owner}: {error}")
        bench.refuses(
            lambda: nic.lease_vf("late", ttl_s=_TTL_S, vf=count), NotFoundError, "a VF that does not exist"
        )
        bench.refuses(lambda: nic.lease_vf("", ttl_s=_TTL_S), InvalidRequestError, "a lease without an owner")
        for lease in leases:
            bench.expect(nic.release_vf(lease), f"VF {lease.vf} was not given back")
            bench.settled()


@behaviour("LS-02", "A VF that is given back is reset before it is given out again", each=with_vfs)
def reset_on_release(bench: Bench) -> None:
    """A lease is released: the VF was reset, and is free."""
    bench.need_vfs(1)
    strike = Strike()
    with bench.nic(Between(bench.driver, strike)) as nic:
        lease = nic.lease_vf("owner", ttl_s=_TTL_S, vf=0)
        strike.calls.clear()
        bench.expect(nic.release_vf(lease), "the VF was not given back")
        bench.expect("reset" in strike.calls, "the VF was given back without a reset", found=strike.calls)
        bench.same(nic.leases(), (), "leases after the only one was released")
    bench.expect(bench.settled()[0].ready is not False, "the VF is not ready after its reset")


@behaviour("LS-03", "A late release by an old owner does nothing", each=with_vfs)
def late_release(bench: Bench) -> None:
    """A lease runs out, the VF is leased to another (and reset before), and the old owner releases it: nothing is done,
    the answer says why, and the new owner keeps the VF.
    """
    bench.need_vfs(1)
    clock, strike = Clock(), Strike()
    with bench.nic(Between(bench.driver, strike), wall_clock_s=clock) as nic:
        old = nic.lease_vf("old", ttl_s=_TTL_S, vf=0)
        clock.now_s += 2 * _TTL_S
        strike.calls.clear()
        new = nic.lease_vf("new", ttl_s=_TTL_S, vf=0)
        bench.expect("reset" in strike.calls, "a VF whose lease ran out was given on without a reset")
        bench.expect(
            new.epoch > old.epoch, "a new lease has no higher epoch", expected=old.epoch, found=new.epoch
        )
        bench.settled()
        strike.calls.clear()
        outcome = nic.release_vf(old)
        bench.expect(not outcome and outcome.detail, "a late release is said to have given the VF back")
        bench.same(strike.calls, [], "calls that change the NIC, by a late release")
        bench.same([lease.owner for lease in nic.leases()], ["new"], "who holds the VF")
        bench.refuses(lambda: nic.renew_lease(old, _TTL_S), ConflictError, "renewing a lease that is over")


@behaviour("LS-04", "The number of VFs is not changed under a lease", each=makes_vfs)
def count_under_lease(bench: Bench) -> None:
    """While a VF is leased, another number of VFs is `ConflictError` with the owner's name, and no VF is touched;
    forced, the lease ends.
    """
    before = len(bench.need_vfs(2))
    strike = Strike()
    with bench.nic(Between(bench.driver, strike)) as nic:
        lease = nic.lease_vf("the-owner", ttl_s=_TTL_S, vf=0)
        strike.calls.clear()
        error = bench.refuses(lambda: nic.set_vf_count(before - 1), ConflictError, "another number of VFs")
        bench.expect("the-owner" in str(error), f"the error does not name the owner: {error}")
        bench.same(strike.calls, [], "calls that change the NIC, by a change that is refused")
        nic.set_vf_count(before - 1, force=True)
        bench.same(nic.leases(), (), "leases after the VFs were made anew")
        bench.same(len(bench.vfs.states()), before - 1, "VFs after the change was forced")
        bench.expect(not nic.release_vf(lease), "a lease of a VF that is gone is released")


@behaviour("LS-05", "Leases outlive the process", each=with_vfs)
def outlive(bench: Bench) -> None:
    """A VF is leased, the NIC is closed and opened: the VF is still leased, and its holder can release it."""
    bench.need_vfs(1)
    with bench.nic(durable=True) as nic:
        lease = nic.lease_vf("owner", ttl_s=_TTL_S, vf=0)
    with bench.nic(durable=True) as nic:
        bench.same(
            [(each.vf, each.owner) for each in nic.leases()], [(0, "owner")], "leases after a new open"
        )
        bench.refuses(lambda: nic.lease_vf("late", ttl_s=_TTL_S, vf=0), ConflictError, "a VF that is leased")
        bench.expect(nic.release_vf(lease), "the holder can't release its VF after a new open")
    bench.settled()
