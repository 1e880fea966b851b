"""The driver as a whole: who it says it is, and whether what it claims is so."""

from __future__ import annotations

import json
import uuid

from nicoffload.driver import RuleRef
from nicoffload.errors import NicOffloadError, NotSupportedError
from nicoffload.model import Drop, FlowRule, LinkState, Match, Support, VfConfig, VlanTag
from nicoffload.schema import find_faults
from nicoffload.testing.conformance.behaviour import SETTINGS, behaviour, tables, whole, with_vfs
from nicoffload.testing.conformance.bench import Bench

_FACETS = {
    "flow_filters": "flow_filters",
    "virtual_functions": "vf",
    "rates": "rates",
    "statistics": "statistics",
}
REPEATS = 3


@behaviour("DR-01", "A NIC says who it is, the same each time", each=whole)
def identity(bench: Bench) -> None:
    """Name, family, plugin and identity are given, agree with the profile, and are those of the next open as well."""
    info = bench.driver.info
    bench.same(info.family, bench.profile.family, "the family in info, beside the profile's")
    for name in ("name", "title", "plugin", "family"):
        bench.expect(getattr(info, name), f"info.{name} is empty")
    bench.expect(bench.driver.identity(), "identity() is empty")
    other = bench.under_test.open_driver()
    try:
        bench.same(other.identity(), bench.driver.identity(), "identity() of the same NIC, opened again")
        bench.same(other.info.name, info.name, "name of the same NIC, opened again")
    finally:
        other.close()


@behaviour("DR-02", "The profile keeps to its schema, and every fact has its source", each=whole)
def profile(bench: Bench) -> None:
    """The document of the profile is one by ``nic-profile.schema.json``, and each table and count of VFs names the
    source that it was read from.
    """
    document = json.loads(json.dumps(bench.profile.document, default=dict))  # it is read-only all through
    faults = find_faults(document, "nic-profile")
    bench.expect(not faults, f"the profile breaks its schema: {faults[:1]}")
    for table in bench.profile.tables:
        bench.expect(table.source, f"table {table.name} has no source")
    if bench.profile.sriov is not None:
        bench.expect(bench.profile.sriov.source, "the number of VFs has no source")


@behaviour("DR-03", "A driver can be closed twice, and what is installed stays", each=whole)
def closing(bench: Bench) -> None:
    """`close` is called three times on a driver of its own."""
    other = bench.under_test.open_driver()
    for _ in range(REPEATS):
        other.close()


@behaviour("CP-01", "Every capability is named once, with how it is known", each=whole)
def capabilities_are_complete(bench: Bench) -> None:
    """`capabilities()` gives each name once; each table of the profile, each setting of VFs, each kind of rate and each
    kind of counter that it declares is among them, and a declared one names its source or says why.
    """
    found = bench.driver.capabilities()
    names = [each.name for each in found]
    bench.same(len(set(names)), len(names), f"different names among {sorted(names)}")
    wanted = [f"flow_filters.{table.name}" for table in bench.profile.tables]
    if bench.profile.vf is not None:
        wanted += [f"vf.{name}" for name in SETTINGS] + ["vf.create"]
        wanted += ["rates.min_tx", "rates.max_tx"]
    missing = [name for name in wanted if name not in names]
    bench.expect(not missing, f"capabilities() does not speak of {', '.join(missing)}")
    for each in found:
        bench.expect(each.source or each.detail, f"{each.name}: neither source nor detail")


@behaviour("CP-02", "What a driver lacks, it says it lacks", each=whole)
def absent_facets_are_explained(bench: Bench) -> None:
    """A facet that is None is not claimed by any capability of its kind."""
    found = bench.driver.capabilities()
    for facet, prefix in _FACETS.items():
        if getattr(bench.driver, facet) is not None:
            continue
        claimed = [
            each.name
            for each in found
            if (each.name == prefix or each.name.startswith(f"{prefix}.")) and each.support is Support.YES
        ]
        if facet == "statistics":
            claimed = [name for name in claimed if name in ("statistics.port", "statistics.vf")]
        bench.expect(not claimed, f"{facet} is None, and {', '.join(claimed)} is claimed")


def _claims_setting(bench: Bench, name: str) -> Support | None:
    return bench.claim(f"vf.{name}")


@behaviour(
    "CP-03",
    "A setting of a VF that is claimed works, and one that is denied is refused by name",
    each=with_vfs,
)
def setting_claims(bench: Bench) -> None:
    """For each setting: yes and partial mean that at least one value is taken; no means `NotSupportedError` naming
    ``vf.<setting>``.
    """
    bench.need_vfs(1)
    values = {
        "mac": 0x02_00_00_0C_C9_03,
        "vlan": VlanTag(vid=33),
        "spoof_check": True,
        "trust": True,
        "link_state": LinkState.AUTO,
    }
    for name, value in values.items():
        claim = _claims_setting(bench, name)
        if claim in (None, Support.UNKNOWN):
            continue
        config = VfConfig(vf=0, **{name: value})  # type: ignore[arg-type]
        (answer,) = bench.retry.bulk(bench.vfs.configure_many, [config], "configure_many")
        if claim is Support.NO:
            error = bench.refusal(answer, NotSupportedError, f"{name}, which is not claimed,")
            assert isinstance(error, NotSupportedError)
            bench.same(error.capability, f"vf.{name}", "the capability that is missing")
        else:
            bench.expect(
                not isinstance(answer, NotSupportedError),
                f"vf.{name} is claimed ({claim.value}), and refused: {answer!r}",
            )
        bench.settled()


@behaviour(
    "CP-04", "A table that is claimed takes rules, and one that is blocked is not claimed whole", each=tables
)
def table_claims(bench: Bench) -> None:
    """A table that `capabilities` says yes to takes a rule as it is; one that is blocked is partial or no."""
    claim = bench.claim(f"flow_filters.{bench.part}")
    state = bench.state(bench.part)
    if state.blocked:
        bench.expect(
            claim is not Support.YES, f"table {bench.part} is blocked, and claimed: {state.blocked[0]}"
        )
        return
    if claim is Support.NO:
        bench.broken(f"table {bench.part} takes rules, and is said not to be there")
    bench.install(bench.some(state, 1))


@behaviour("CP-05", "Through open_nic, what a NIC lacks is NotSupportedError with the reason", each=whole)
def lacking_through_nic(bench: Bench) -> None:
    """Each facet that the driver does not have is asked for through `Nic`: the error names the capability."""
    with bench.nic() as nic:
        rule = FlowRule(match=Match.of(eth_type=0x88B5), actions=(Drop(),))
        calls = {
            "flow_filters": lambda: nic.add_flows([rule]),
            "virtual_functions": lambda: nic.set_vf_count(1),
            "rates": nic.rates,
            "statistics": nic.stats,
        }
        for facet, call in calls.items():
            if getattr(bench.driver, facet) is not None:
                continue
            error = bench.refuses(call, NotSupportedError, f"{facet}, which the NIC does not have,")
            assert isinstance(error, NotSupportedError)
            bench.same(error.capability.partition(".")[0], _FACETS[facet], "the capability that is missing")


@behaviour("ER-01", "Every refusal names the device and says more than that it failed", each=whole)
def refusals_speak(bench: Bench) -> None:
    """Some things that every NIC refuses are asked for; each error names the NIC, has a message, and gives field,
    reason or hint.
    """
    errors: list[NicOffloadError] = []
    filters = bench.driver.flow_filters
    if filters is not None:
        for state in filters.tables():
            slot = 0 if state.table.picker != "none" else None
            missing = RuleRef(rule_id=uuid.uuid4(), table=state.table.name, slot=slot)
            if slot is not None and bench.installed(state.table.name):
                continue
            answer = filters.destroy_many([missing])[0]
            errors += [answer] if answer is not None else []
            bench.expect(answer is not None, f"removing a rule that is not in {state.table.name} succeeded")
    vfs = bench.driver.virtual_functions
    if vfs is not None:
        errors.append(bench.refuses(lambda: vfs.set_count(vfs.limit() + 1), NicOffloadError, "too many VFs"))
        answer = vfs.configure_many([VfConfig(vf=len(vfs.states()), mac=0x02_00_00_0C_E5_01)])[0]
        bench.expect(answer is not None, "a setting of a VF that does not exist succeeded")
        errors += [answer] if answer is not None else []
    for error in errors:
        bench.refusal(error, NicOffloadError, "something that every NIC refuses")
        says = (
            error.path
            or error.hint
            or error.kernel_message
            or getattr(error, "reasons", "")
            or error.__cause__
        )
        bench.expect(says or len(error.message) > 20, f"the error says no more than {error.message!r}")
