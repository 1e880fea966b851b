"""VFs: settings are in force when the call says so, and as before when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, NotSupportedError
from nicoffload.model import LinkState, Support, VfConfig, VfState, VlanTag
from nicoffload.profiles.types import NicProfile, Setting
from nicoffload.testing.conformance.behaviour import (
    SETTINGS,
    behaviour,
    missing_settings,
    settings,
    with_vfs,
)
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.vf_count import REPEATS, tolerant

_REFUSALS = (NotSupportedError, InvalidRequestError)


def _facts(bench: Bench, name: str) -> Setting:
    assert bench.profile.vf is not None
    found: Setting = getattr(bench.profile.vf, name)
    return found


def _values(bench: Bench, name: str) -> list[Any]:
    """Return values of a setting that take effect, by the profile: at least two where there are two."""
    facts = _facts(bench, name)
    if name == "mac":
        return [0x02_00_00_0C_5E_01, 0x02_00_00_0C_5E_02]
    if name == "vlan":
        tags = [VlanTag(vid=100), VlanTag(vid=101)]
        qos = _facts(bench, "qos")
        if qos.supported == "yes" and qos.values is None and (qos.max is None or qos.max >= 3):
            tags.append(VlanTag(vid=100, pcp=3))
        return [*tags, VlanTag(vid=0)]
    if name == "link_state":
        names = [state for state in LinkState if facts.values is None or state.value in facts.values]
        return [state for state in names if state.value not in (*facts.no_effect, *facts.no_effect_in_mode)]
    return [value for value in (True, False, True) if value not in facts.no_effect]


def _usable(bench: Bench, name: str) -> None:
    """Raise where the driver says that the setting can't be had at present, or does not know."""
    claim = bench.claim(f"vf.{name}")
    if claim is Support.NO:
        bench.not_applicable(
            f"the NIC says that it has no {name} at present (another part, firmware or mode)"
        )
    if claim is Support.UNKNOWN:
        bench.not_shown(f"the driver does not know whether the NIC has {name}")


def _plain(value: object) -> object:
    return None if isinstance(value, VlanTag) and not value.vid and not value.pcp else value


def _read(bench: Bench, vf: int, name: str) -> object:
    return getattr(bench.vfs.states()[vf], name)


@behaviour("VF-20", "A setting that is said to be in force is read back", each=settings)
def set_and_read_back(bench: Bench) -> None:
    """Each value of the setting is set on a VF, several times over, and `states()` reports it."""
    name = bench.part
    bench.need_vfs(1)
    _usable(bench, name)
    values = _values(bench, name)
    reported = _read(bench, 0, name) is not None
    for value in values:
        for _ in range(2):
            answer = tolerant(bench, VfConfig(vf=0, **{name: value}))
            bench.expect(answer is None, f"{name} {value} was refused: {answer!r}")
            if reported:
                bench.same(_plain(_read(bench, 0, name)), _plain(value), f"{name} of VF 0")
    if not reported:
        bench.not_shown(f"the kernel or the NIC does not report {name}, so that nobody can tell")


@behaviour("VF-21", "A setting of one VF leaves every other VF and every other setting alone", each=settings)
def only_what_was_asked(bench: Bench) -> None:
    """One setting of VF 0 is changed: all other settings of VF 0, and all of the other VFs, read as before."""
    name = bench.part
    bench.need_vfs(2)
    _usable(bench, name)
    if name == "spoof_check":
        tolerant(bench, VfConfig(vf=0, spoof_check=_read(bench, 0, name) is True))
    before = bench.settled()
    for value in _values(bench, name):
        tolerant(bench, VfConfig(vf=0, **{name: value}))
        after = bench.vfs.states()
        for other in SETTINGS:
            if other != name:
                bench.same(
                    getattr(after[0], other),
                    getattr(before[0], other),
                    f"{other} of VF 0 after {name} changed",
                )
        bench.same(
            [_settings(state) for state in after[1:]],
            [_settings(state) for state in before[1:]],
            f"the other VFs after {name} of VF 0 changed",
        )


def _settings(state: VfState) -> tuple[object, ...]:
    return tuple(getattr(state, name) for name in SETTINGS)


@behaviour(
    "VF-22",
    "A setting that the NIC does not have is refused by name, and reads as unknown",
    each=missing_settings,
)
def missing_setting(bench: Bench) -> None:
    """Where the profile says no: asking is `NotSupportedError` naming ``vf.<setting>``, as often as one asks, and
    `states()` reports None for it, not a value that nobody enforces.
    """
    name = bench.part
    before = bench.need_vfs(1)[0]
    value: Any = {"mac": 0x02_00_00_0C_5E_22, "vlan": VlanTag(vid=22), "link_state": LinkState.DISABLE}.get(
        name, True
    )
    for _ in range(REPEATS):
        (answer,) = bench.retry.bulk(
            bench.vfs.configure_many, [VfConfig(vf=0, **{name: value})], "configure_many"
        )
        error = bench.refusal(answer, NotSupportedError, f"{name}, which the NIC does not have,")
        assert isinstance(error, NotSupportedError)
        bench.same(error.capability, f"vf.{name}", "the capability that is missing")
    bench.expect(
        _read(bench, 0, name) is None, f"the NIC has no {name}, and it reads as {_read(bench, 0, name)}"
    )
    bench.same(_settings(bench.settled()[0]), _settings(before), "the VF after the refusal")


@behaviour("VF-23", "A config that is refused half-way leaves the VF as it was", each=missing_settings)
def refused_half_way(bench: Bench) -> None:
    """One config asks for something that the NIC has and something that it does not: it is refused as a whole."""
    bench.need_vfs(1)
    good = next(
        (name for name in ("mac", "vlan") if _facts(bench, name).supported == "yes" and name != bench.part),
        "",
    )
    if not good or _read(bench, 0, good) is None:
        bench.not_shown("the NIC has no setting that could be left behind")
    before = bench.settled()[0]
    values = {good: _values(bench, good)[0], bench.part: _bad_value(bench.part)}
    (answer,) = bench.retry.bulk(bench.vfs.configure_many, [VfConfig(vf=0, **values)], "configure_many")
    bench.refusal(answer, NotSupportedError, f"{good} with {bench.part}, which the NIC does not have,")
    bench.same(
        _settings(bench.settled()[0]), _settings(before), "the VF after a config that was refused half-way"
    )


def _bad_value(name: str) -> Any:
    return {"mac": 0x02_00_00_0C_5E_23, "vlan": VlanTag(vid=23), "link_state": LinkState.DISABLE}.get(
        name, True
    )


@behaviour("VF-24", "Of several configs each is answered for itself", each=with_vfs)
def each_for_itself(bench: Bench) -> None:
    """One call configures VF 0, a VF that does not exist, and VF 1: the one in the middle is `NotFoundError` (or the
    number is said to be invalid), and the others are in force.
    """
    states = bench.need_vfs(2)
    name = next((n for n in ("mac", "vlan") if _facts(bench, n).supported == "yes"), "")
    if not name:
        bench.not_shown("the NIC has neither addresses nor VLANs of VFs")
    first, second = _values(bench, name)[:2]
    configs = [
        VfConfig(vf=0, **{name: first}),
        VfConfig(vf=len(states), **{name: first}),
        VfConfig(vf=1, **{name: second}),
    ]
    answers = list(bench.retry.bulk(bench.vfs.configure_many, configs, "configure_many"))
    bench.same(len(answers), 3, "answers for three configs")
    bench.refusal(
        answers[1], (NotFoundError, InvalidRequestError), f"{name} of VF {len(states)} of {len(states)}"
    )
    bench.expect(
        answers[0] is None and answers[2] is None, f"the others were refused: {answers[0]!r}, {answers[2]!r}"
    )
    after = bench.settled()
    if getattr(after[0], name) is not None:
        bench.same([getattr(after[at], name) for at in (0, 1)], [first, second], f"{name} of VFs 0 and 1")


def narrow_settings(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each setting of which some values are refused, by the profile."""
    return tuple(name for name, _ in _wrong_values(profile))


def _wrong_values(profile: NicProfile) -> Iterator[tuple[str, VlanTag | LinkState]]:
    facts = profile.vf
    if facts is None:
        return
    if facts.vlan.supported == "yes":
        if facts.vlan_protocols.supported == "yes" and "802.1ad" not in (
            facts.vlan_protocols.values or ("802.1Q",)
        ):
            yield "vlan", VlanTag(vid=5, protocol="802.1ad")
        elif facts.vlan.max is not None and facts.vlan.max < 4095:
            yield "vlan", VlanTag(vid=facts.vlan.max + 1)
    if facts.link_state.supported == "yes" and facts.link_state.values is not None:
        for state in LinkState:
            if state.value not in (*facts.link_state.values, *facts.link_state.no_effect):
                yield "link_state", state


@behaviour(
    "VF-25", "A value that the NIC does not take is refused, and the old one stays", each=narrow_settings
)
def wrong_value(bench: Bench) -> None:
    """A value outside of those that the profile gives: a VLAN protocol, a VLAN, a link state."""
    bench.need_vfs(1)
    _usable(bench, bench.part)
    value: Any = dict(_wrong_values(bench.profile))[bench.part]
    before = bench.settled()[0]
    (answer,) = bench.retry.bulk(
        bench.vfs.configure_many,
        [VfConfig(vf=0, **{bench.part: value})],
        "configure_many",
    )
    bench.refusal(answer, _REFUSALS, f"{bench.part} {value}")
    bench.same(_settings(bench.settled()[0]), _settings(before), "the VF after the refusal")


def with_no_effect(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each setting of which the driver accepts some values and does nothing."""
    return tuple(name for name in settings(profile) if getattr(profile.vf, name).no_effect)


@behaviour(
    "VF-26", "A value that the driver accepts and ignores is never reported as in force", each=with_no_effect
)
def no_effect(bench: Bench) -> None:
    """Where the profile says that a value does nothing, the driver refuses it, or `states()` goes on reporting the old
    one; through `open_nic` it is an error in either case.
    """
    name = bench.part
    bench.need_vfs(1)
    _usable(bench, name)
    before = bench.settled()[0]
    for value in _facts(bench, name).no_effect:
        wanted: Any = LinkState(value) if name == "link_state" else value
        with bench.nic() as nic:
            try:
                nic.configure_vfs([VfConfig(vf=0, **{name: wanted})])
            except NicOffloadError as error:
                bench.refusal(error, NicOffloadError, f"{name} {value}, which does nothing here,")
            else:
                bench.expect(
                    _read(bench, 0, name) is None, f"{name} {value} does nothing here, and the call succeeds"
                )
        bench.same(_settings(bench.settled()[0]), _settings(before), f"the VF after {name} {value}")
