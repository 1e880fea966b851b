"""VFs: how many there are, how they come and go, whose they are."""

from __future__ import annotations

from nicoffload.errors import (
    DeviceBusyError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.model import Disruption, VfConfig
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.conformance.behaviour import behaviour, with_vfs
from nicoffload.testing.conformance.bench import Bench

REPEATS = 5


def makes_vfs(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC whose VFs are made at run time."""
    sriov = profile.sriov
    return ("",) if sriov is not None and sriov.at_run_time else ()


def makes_no_vfs(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC whose VFs are made when its driver loads, or by the vendor's own tools."""
    sriov = profile.sriov
    return ("",) if sriov is not None and not sriov.at_run_time else ()


def without_vfs(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC that can't have VFs."""
    return ("",) if profile.sriov is None else ()


def _check_indexes(bench: Bench, count: int) -> None:
    states = bench.vfs.states()
    bench.same([state.vf for state in states], list(range(count)), f"indexes of {count} VFs")


@behaviour("VF-01", "The limit on VFs is that of the profile, or what the device tells", each=with_vfs)
def limit(bench: Bench) -> None:
    """`limit()` is at least 0, the same each time, and not above the number that the profile states."""
    first = bench.vfs.limit()
    stated = bench.profile.sriov.max_vfs if bench.profile.sriov is not None else None
    bench.expect(first >= 0, f"the limit is {first}")
    bench.expect(
        stated is None or first <= stated, "the limit is above the profile's", expected=stated, found=first
    )
    bench.same(bench.vfs.limit(), first, "the limit, asked for again")


@behaviour("VF-02", "VFs come and go as they are asked for, each under its index", each=makes_vfs)
def count_life_cycle(bench: Bench) -> None:
    """None, one, four (as many as there can be) and none again: each time exactly so many exist when the call returns,
    with indexes from 0 without a gap, and each is ready soon.
    """
    most = bench.vfs.limit()
    for count in (0, 1, min(most, 4), min(most, 2), 0):
        bench.retry.call(lambda count=count: bench.vfs.set_count(count))  # type: ignore[misc]
        _check_indexes(bench, count)
        bench.settled()


@behaviour("VF-03", "As many VFs can be made as the limit says", each=makes_vfs)
def all_vfs(bench: Bench) -> None:
    """`limit()` VFs are made, and gone again afterwards."""
    most = bench.vfs.limit()
    if most > 16 and not bench.under_test.disposable:
        bench.not_shown(f"making {most} VFs is left out on a NIC that is not the kit's own")
    bench.retry.call(lambda: bench.vfs.set_count(0))
    bench.retry.call(lambda: bench.vfs.set_count(most))
    _check_indexes(bench, most)
    bench.retry.call(lambda: bench.vfs.set_count(0))
    _check_indexes(bench, 0)


@behaviour(
    "VF-04",
    "More VFs than the limit, or fewer than none, are refused, and those that exist stay",
    each=with_vfs,
)
def beyond_the_limit(bench: Bench) -> None:
    """`limit() + 1` and -1 are `InvalidRequestError`; number and settings of the VFs are as before."""
    before = bench.vfs.states()
    for count in (bench.vfs.limit() + 1, -1):
        bench.refuses(lambda count=count: bench.vfs.set_count(count), InvalidRequestError, f"{count} VFs")  # type: ignore[misc]
        bench.same(len(bench.vfs.states()), len(before), f"VFs after {count} were refused")


@behaviour("VF-05", "Asking for the number that exists changes nothing, as often as one asks", each=makes_vfs)
def same_count(bench: Bench) -> None:
    """The same number is asked for again: it costs nobody anything, and VFs keep their settings."""
    before = len(bench.need_vfs(2))
    mac = 0x02_00_00_0C_0F_05
    kept = _set_mac(bench, 1, mac)
    for _ in range(REPEATS):
        cost = bench.retry.call(lambda: bench.vfs.set_count(before))
        bench.same(cost, Disruption.NONE, "what asking for the present number costs")
    states = bench.vfs.states()
    bench.same(len(states), before, "VFs after the same number was asked for")
    if kept:
        bench.same(states[1].mac, mac, "the address of VF 1 after the same number was asked for")


def _set_mac(bench: Bench, vf: int, mac: int) -> bool:
    (answer,) = bench.retry.bulk(bench.vfs.configure_many, [VfConfig(vf=vf, mac=mac)], "configure_many")
    bench.settled()
    return answer is None and bench.vfs.states()[vf].mac == mac


@behaviour("VF-06", "Changing the number of VFs that exist tells that it costs them", each=makes_vfs)
def count_costs(bench: Bench) -> None:
    """Where VFs exist, making their number another one answers with a disruption; their guests lose them."""
    before = len(bench.need_vfs(2))
    cost = bench.retry.call(lambda: bench.vfs.set_count(before - 1))
    bench.expect(cost is not Disruption.NONE, "taking VFs away is said to cost nothing")
    bench.same(len(bench.vfs.states()), before - 1, "VFs after one was taken away")


@behaviour(
    "VF-07",
    "Where VFs are not made at run time, asking for them is refused with how they are made",
    each=makes_no_vfs,
)
def not_at_run_time(bench: Bench) -> None:
    """Another number of VFs is `NotSupportedError` naming ``vf.create``, with how they are made as its reason. Where
    the driver accepts the write and does nothing it is `VerificationError`; it never succeeds.
    """
    before = len(bench.vfs.states())
    other = before - 1 if before else 1
    if bench.vfs.limit() < other:
        bench.not_shown("the NIC says that it can have no VFs")
    error = bench.refuses(
        lambda: bench.vfs.set_count(other),
        (NotSupportedError, VerificationError),
        f"{other} VFs on a NIC whose VFs are not made at run time",
    )
    if isinstance(error, NotSupportedError):
        bench.same(error.capability, "vf.create", "the capability that is missing")
    else:
        bench.expect(error.hint, "the error does not say how VFs are made")
    bench.same(len(bench.vfs.states()), before, "VFs after the refusal")


@behaviour("VF-08", "A new VF is a new VF: nothing of the one before it is left", each=makes_vfs)
def new_vfs_are_new(bench: Bench) -> None:
    """A VF is given an address, all VFs are taken away and made anew: the address is gone."""
    bench.need_vfs(1)
    mac = 0x02_00_00_0C_0F_08
    if not _set_mac(bench, 0, mac):
        bench.not_shown("the address of a VF can't be set or read here")
    count = len(bench.vfs.states())
    bench.retry.call(lambda: bench.vfs.set_count(0))
    bench.retry.call(lambda: bench.vfs.set_count(count))
    bench.expect(bench.settled()[0].mac != mac, "a new VF has the address of the one before it")


@behaviour("VF-09", "Reading VFs changes nothing", each=with_vfs)
def reading_changes_nothing(bench: Bench) -> None:
    """`states()` and `limit()` are asked over and over, and answer the same."""
    if bench.driver.virtual_functions is not None:
        bench.settled()
    before = list(bench.vfs.states())
    for _ in range(REPEATS):
        bench.vfs.limit()
        bench.same(list(bench.vfs.states()), before, "the VFs, read again")


@behaviour(
    "VF-10", "A VF that is reset comes back, is in use again, and keeps what the host set", each=with_vfs
)
def reset(bench: Bench) -> None:
    """A VF is reset several times: each time it is ready again, and the other VFs are as they were."""
    bench.need_vfs(1)
    others = [state for state in bench.settled() if state.vf != 0]
    for _ in range(REPEATS):
        try:
            bench.retry.call(lambda: bench.vfs.reset(0))
        except NotSupportedError as error:
            bench.refusal(error, NotSupportedError, "resetting a VF")
            bench.not_shown(f"this NIC's VFs can't be reset from here: {error}")
        states = bench.settled()
        bench.expect(states[0].ready is not False, "a VF that was reset is not ready")
    bench.same(
        [state for state in bench.vfs.states() if state.vf != 0], others, "the other VFs after a reset"
    )


@behaviour("VF-11", "Resetting or binding a VF that does not exist is NotFoundError", each=with_vfs)
def no_such_vf(bench: Bench) -> None:
    """The VF behind the last one is reset, and bound to a driver."""
    missing = len(bench.vfs.states())
    bench.refuses(lambda: bench.vfs.reset(missing), NotFoundError, f"resetting VF {missing}")
    bench.refuses(lambda: bench.vfs.bind(missing, ""), NotFoundError, f"unbinding VF {missing}")


@behaviour("VF-12", "A VF is bound to the driver that is asked for, or to none", each=with_vfs)
def bind(bench: Bench) -> None:
    """A VF is unbound, bound to its own driver or to vfio-pci, and unbound again, each twice; `states()` says so."""
    bench.need_vfs(1)
    drivers = [name for name in (bench.profile.vf_driver, "vfio-pci") if name]
    usable, refused = "", ""
    for name in drivers:
        try:
            bench.retry.call(lambda name=name: bench.vfs.bind(0, name))  # type: ignore[misc]
        except NotFoundError:
            continue
        except NotSupportedError as error:
            refused = "; ".join(reason.message for reason in error.reasons) or error.message
            continue
        usable = name
        break
    if not usable:
        bench.not_shown(refused or f"this machine has none of the drivers {', '.join(drivers)}")
    for name in ("", usable, ""):
        for _ in range(2):
            bench.retry.call(lambda name=name: bench.vfs.bind(0, name))  # type: ignore[misc]
            bench.same(bench.settled()[0].driver, name, "the driver of VF 0")


@behaviour(
    "VF-13",
    "Binding a VF to a driver that does not exist is refused, and the VF keeps its own",
    each=with_vfs,
)
def bind_to_nothing(bench: Bench) -> None:
    """A driver that no machine has is named: `NotFoundError`, and the VF is bound as before."""
    before = bench.need_vfs(1)[0].driver
    try:
        bench.refuses(
            lambda: bench.vfs.bind(0, "nicoffload_no_such_driver"),
            (NotFoundError, NotSupportedError),
            "binding a VF to a driver that does not exist",
        )
    except DeviceBusyError as error:
        bench.not_shown(f"the VF is busy: {error}")
    bench.same(bench.settled()[0].driver, before, "the driver of VF 0")


@behaviour("VF-14", "A NIC without VFs has no VFs, and says so", each=without_vfs)
def no_vfs(bench: Bench) -> None:
    """Where the profile has no SR-IOV, `virtual_functions` is None, or its limit is 0 and making one is refused."""
    vfs = bench.driver.virtual_functions
    if vfs is None:
        return
    bench.same(vfs.limit(), 0, "the limit on VFs of a NIC without SR-IOV")
    bench.refuses(
        lambda: vfs.set_count(1), (NotSupportedError, InvalidRequestError), "a VF on a NIC without SR-IOV"
    )


def tolerant(bench: Bench, config: VfConfig) -> NicOffloadError | None:
    """Return what becomes of a config; where the VF's driver is in the way, it is unbound first.

    Some drivers change a setting only while nothing runs the VF's queues.
    """
    (answer,) = bench.retry.bulk(bench.vfs.configure_many, [config], "configure_many")
    if isinstance(answer, DeviceBusyError) and bench.vfs.states()[config.vf].driver:
        bench.vfs.bind(config.vf, "")
        (answer,) = bench.retry.bulk(bench.vfs.configure_many, [config], "configure_many")
    bench.settled()
    return answer
