"""From condition to errno and back: what the emulated driver means is what the SDK makes of its errno."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload import load_registry
from nicoffload.driver import Placement
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
    errno_number,
    from_errno,
)
from nicoffload.linux.errnos import Certainty, Operation, Situation, explain, meanings
from nicoffload.model import LinkState, VlanTag
from nicoffload.profiles.conditions import CONDITIONS
from nicoffload.schema import load_schema
from nicoffload.testing.emulator.answer import Refused
from tests.agreement.near_valid import rules
from tests.linux import gather

REGISTRY = load_registry()
FAMILIES = REGISTRY.profiles.families()
WITH_TABLES = [name for name in FAMILIES if REGISTRY.profiles.get(name).tables]
WITH_VFS = [name for name in FAMILIES if REGISTRY.profiles.get(name).sriov]
PROPERTY = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def profile(family):
    return REGISTRY.profiles.get(family)


def first(family, operation, errno, **situation):
    found = meanings(profile(family), operation, errno_number(errno), Situation(**situation))
    return found[0] if found else None


def table_of(family, name):
    return profile(family).table(name)


def check(driver, operation, refused, situation):
    """Hold the SDK's reading of an errno against what the emulated driver meant."""
    if refused.condition not in CONDITIONS:
        return  # a value that only the profile's own field rule names; the kernel has no word for it
    meant = CONDITIONS[refused.condition].kind
    found = meanings(driver.profile, operation, errno_number(refused.errno), situation)
    if not found:
        # The profile is silent, so the errno is an invention of the emulator's.
        stated = (
            situation.table.errors
            if situation.table
            else {**driver.profile.vf.errors, **driver.profile.sriov.errors}
        )
        assert refused.condition not in stated, (refused.errno, refused.condition)
        return
    if found[0].kind is meant:
        return
    # A request that is wrong in two ways: the emulated driver looks at the rule first, the SDK at what it is sure of.
    sure = {each.condition for each in found if each.certainty is not Certainty.POSSIBLE}
    both = refused.condition in sure or meant is NotSupportedError
    assert sure, (refused.errno, refused.condition, refused.text, found)
    assert both, (refused.errno, refused.condition, refused.text, found)


def test_every_condition_of_the_schema_has_a_class():
    definitions = load_schema("nic-profile")["$defs"]
    named = {
        name
        for key, part in definitions.items()
        if key.endswith("_errors")
        for name in part["propertyNames"]["enum"]
    }
    assert named
    assert named <= set(CONDITIONS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_errno_of_a_profile_has_a_meaning_of_the_class_of_its_condition(family):
    facts = profile(family)
    for table in facts.tables:
        for condition, errno in table.errors.items():
            if errno is None or condition == "slot_occupied":
                continue
            operation = {
                "missing": Operation.DESTROY,
                "missing_read": Operation.READ,
                "no_counters": Operation.COUNTERS,
                "list_buffer": Operation.LIST,
                "feature_in_use": Operation.FEATURE_OFF,
            }.get(condition, Operation.CREATE)
            found = {
                each.condition
                for slot in (None, 0)
                for each in meanings(facts, operation, errno_number(errno), Situation(table=table, slot=slot))
            }
            assert condition in found, (table.name, condition)
    sections = [(facts.sriov, Operation.VF_COUNT), (facts.eswitch, Operation.MODE)]
    sections.append((facts.rates.devlink, Operation.DEVLINK_RATE))
    for part, operation in sections:
        for condition, errno in part.errors.items() if part else ():
            if errno is not None:
                found = meanings(facts, operation, errno_number(errno), Situation())
                assert condition in {each.condition for each in found}, condition


@pytest.mark.parametrize("family", WITH_TABLES)
@PROPERTY
@given(data=st.data())
def test_the_class_of_a_refused_rule_is_what_the_emulated_driver_meant(family, data):
    mode = data.draw(st.sampled_from(profile(family).eswitch.modes)) if profile(family).eswitch else ""
    rows = data.draw(st.sampled_from([2, 8, 64]))
    names = [table.name for table in profile(family).tables]
    options = [f"rows.{name}={rows}" for name in names] + ([f"mode={mode}"] if mode else [])
    options.append(f"prepared={data.draw(st.sampled_from(['yes', 'yes', 'no']))}")
    driver = REGISTRY.open(
        f"mock:{family},vfs=0" if not profile(family).sriov else f"mock:{family}," + ",".join(options)
    )
    for rule in data.draw(rules(dict(profile(family).document))):
        table = profile(family).table(data.draw(st.sampled_from(names)))
        kinds = [kind.name for kind in table.flow_types]
        slot = (
            data.draw(st.sampled_from([None, 0, 1, rows - 1, rows, rows + 7]))
            if table.picker != "none"
            else None
        )
        placement = Placement(rule, table.name, data.draw(st.sampled_from(kinds)), slot)
        situation = gather.of_rule(driver, placement)
        try:
            driver.device.create(table.name, rule, placement.flow_type, slot)
        except Refused as refused:
            check(driver, Operation.CREATE, refused, situation)


@pytest.mark.parametrize("family", WITH_VFS)
@PROPERTY
@given(data=st.data())
def test_the_class_of_a_refused_setting_is_what_the_emulated_driver_meant(family, data):
    mode = data.draw(st.sampled_from(profile(family).eswitch.modes)) if profile(family).eswitch else ""
    vfs = data.draw(st.sampled_from([0, 1, 3]))
    link = data.draw(st.sampled_from([1_000_000_000, 10_000_000_000]))
    driver = REGISTRY.open(f"mock:{family},vfs={vfs},link_bps={link}" + (f",mode={mode}" if mode else ""))
    values = {
        "mac": st.sampled_from([0, 2, 0x02_00_00_00_00_01]),
        "vlan": st.builds(
            VlanTag,
            vid=st.sampled_from([0, 1, 4095]),
            pcp=st.integers(0, 7),
            protocol=st.sampled_from(["802.1Q", "802.1ad"]),
        ),
        "spoof_check": st.booleans(),
        "trust": st.booleans(),
        "link_state": st.sampled_from(LinkState),
        "min_tx": st.sampled_from([0, 1_000_000, 55_500_000, 9_000_000_000, 20_000_000_000]),
        "max_tx": st.sampled_from([0, 1_000_000, 55_500_000, 9_000_000_000, 20_000_000_000]),
    }
    for _ in range(data.draw(st.integers(1, 6))):
        name = data.draw(st.sampled_from(sorted(values)))
        vf, value = data.draw(st.sampled_from([0, 0, 1, 2, 7])), data.draw(values[name])
        situation = gather.of_vf(driver, vf, name, value)
        try:
            if name in ("min_tx", "max_tx"):
                driver.device.sriov.set_rate(vf, name, value)
            else:
                driver.device.sriov.set(vf, name, value)
        except Refused as refused:
            operation = Operation.VF_RATE if name in ("min_tx", "max_tx") else Operation.VF_SET
            check(driver, operation, refused, situation)


@pytest.mark.parametrize("family", WITH_VFS)
@pytest.mark.parametrize("count", [1, 63, 64, 129, 300, 5000])
def test_the_class_of_a_refused_number_of_vfs_is_what_the_emulated_driver_meant(family, count):
    for vfs in (0, 1):
        driver = REGISTRY.open(f"mock:{family},vfs={vfs}")
        situation = Situation(count=count, vf_count=vfs, total_vfs=driver.device.sriov.limit)
        try:
            driver.device.sriov.set_count(count)
        except Refused as refused:
            check(driver, Operation.VF_COUNT, refused, situation)


@pytest.mark.parametrize(
    ("family", "table", "errno", "situation", "kind"),
    [
        # One errno, two meanings, told apart by the state.
        ("mlx5", "ntuple", "ENOSPC", {"slot": 2000, "rows": 1024, "in_use": 3}, InvalidRequestError),
        ("mlx5", "ntuple", "ENOSPC", {"slot": 3, "rows": 1024, "in_use": 1024}, ResourceExhaustedError),
        ("ice", "fdir", "ENOSPC", {"slot": 2000, "rows": 512, "in_use": 3}, InvalidRequestError),
        ("ice", "fdir", "ENOSPC", {"slot": 3, "rows": 512, "in_use": 512}, ResourceExhaustedError),
        # EBUSY: full to Siena and EF10, resetting to i40e.
        ("sfc_siena", "rx_ip", "EBUSY", {}, ResourceExhaustedError),
        ("sfc_siena", "rx_ip", "EBUSY", {"rows": 8192, "in_use": 4000}, ResourceExhaustedError),
        ("sfc_ef10", "filters", "EBUSY", {}, ResourceExhaustedError),
        ("i40e", "fdir", "EBUSY", {}, DeviceBusyError),
        # -ENOTSUPP, which user space has no name for.
        ("mlx5", "ntuple", "ENOTSUPP", {}, NotSupportedError),
        # EINVAL is everything to ixgbe.
        ("ixgbe", "fdir", "EINVAL", {"slot": 5000, "rows": 2046}, InvalidRequestError),
    ],
)
def test_state_decides_what_an_errno_means(family, table, errno, situation, kind):
    found = first(family, Operation.CREATE, errno, table=table_of(family, table), **situation)
    assert found.kind is kind


@pytest.mark.parametrize(
    ("family", "table", "errno"),
    [
        ("igb_i350", "ntuple", "EINVAL"),
        ("ixgbe", "fdir", "EINVAL"),
        ("i40e", "fdir", "EINVAL"),
        ("mlx5", "ntuple", "ENOENT"),
    ],
)
def test_a_missing_rule_is_not_found_whatever_errno_says_so(family, table, errno):
    for operation in (Operation.DESTROY, Operation.READ):
        assert first(family, operation, errno, table=table_of(family, table)).kind is NotFoundError


@pytest.mark.parametrize(("family", "errno"), [("ixgbe", "EPERM"), ("ice", "EOPNOTSUPP"), ("mlx5", "ERANGE")])
def test_too_many_vfs_is_a_wrong_request_whatever_errno_says_so(family, errno):
    assert (
        first(family, Operation.VF_COUNT, errno, count=4000, total_vfs=63, vf_count=0).kind
        is InvalidRequestError
    )


@pytest.mark.parametrize(("family", "errno"), [("ixgbe", "EPERM"), ("i40e", "EINVAL"), ("ice", "EBUSY")])
def test_vfs_of_guests_are_busy_whatever_errno_says_so(family, errno):
    assert first(family, Operation.VF_COUNT, errno, count=0, vf_count=2, held=True).kind is DeviceBusyError


def test_a_resetting_vf_is_busy():
    assert (
        first("i40e", Operation.VF_SET, "EAGAIN", setting="trust", value=True, vf=0, vf_count=1).kind
        is DeviceBusyError
    )
    assert (
        first("ice", Operation.VF_SET, "EBUSY", setting="trust", value=True, vf=0, vf_count=1).kind
        is DeviceBusyError
    )


def test_a_mode_change_says_what_is_in_the_way():
    assert first("ice", Operation.MODE, "EOPNOTSUPP", vf_count=2).kind is ConflictError
    assert (
        first("mlx5", Operation.MODE, "EBUSY", rate_nodes=True, flows=False).condition == "rate_nodes_present"
    )
    assert first("mlx5", Operation.MODE, "EBUSY", rate_nodes=False, flows=True).condition == "flows_present"


def test_an_error_keeps_the_number_the_cause_and_the_reasons():
    raw = from_errno(errno_number("ENOTSUPP"), "installing a rule", capability="ntuple", device="eth0")
    table = table_of("mlx5", "ntuple")
    made = explain(
        raw,
        profile("mlx5"),
        Operation.CREATE,
        Situation(table=table),
        capability="flow_filters.ntuple",
        device="nic",
    )
    assert isinstance(made, NotSupportedError)
    assert made.__cause__ is raw
    assert (made.errno, made.device, made.capability) == (524, "nic", "flow_filters.ntuple")
    assert made.reasons[0].code == "driver.flow_type"
    assert made.reasons[0].source


def test_a_full_table_tells_its_size():
    raw = from_errno(errno_number("EBUSY"), "installing a rule", capability="ntuple")
    now = Situation(table=table_of("sfc_siena", "rx_mac"), rows=512, in_use=400)
    made = explain(raw, profile("sfc_siena"), Operation.CREATE, now, capability="flow_filters.rx_mac")
    assert isinstance(made, ResourceExhaustedError)
    assert (made.limit, made.in_use) == (512, 400)
    assert "hash" in str(made)


def test_an_errno_that_the_profile_does_not_know_stays_what_it_was():
    raw = from_errno(errno_number("EXDEV"), "installing a rule", capability="ntuple")
    assert isinstance(raw, KernelError)
    now = Situation(table=table_of("ixgbe", "fdir"))
    assert explain(raw, profile("ixgbe"), Operation.CREATE, now, capability="x") is raw
    bare = NicOffloadError("no number")
    assert explain(bare, profile("ixgbe"), Operation.CREATE, now, capability="x") is bare
