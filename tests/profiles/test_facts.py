"""Key facts about drivers, each taken by hand from the driver study; the number is that of its section."""

from __future__ import annotations

import pytest


def table(family, name):
    return lambda catalog: catalog.get(family).table(name)


def error(family, name, condition):
    return lambda catalog: catalog.get(family).table(name).errors.get(condition, "not stated")


def mask(family, name, flow_type, field):
    def read(catalog):
        found = {one.name: one for one in catalog.get(family).table(name).flow_types}[flow_type]
        return found.fields[field].mask if field in found.fields else None

    return read


def value(family, path):
    def read(catalog):
        part = catalog.get(family)
        for step in path.split("."):
            part = part[step] if isinstance(part, dict) or hasattr(part, "keys") else getattr(part, step)
        return part

    return read


def of_table(family, name, path):
    def read(catalog):
        part = catalog.get(family).table(name)
        for step in path.split("."):
            part = getattr(part, step)
        return part

    return read


def flow_types(family, name):
    return lambda catalog: [one.name for one in catalog.get(family).table(name).flow_types]


def quirk(family, name):
    return lambda catalog: any(one.id == name for one in catalog.get(family).quirks)


def shapes(family, name):
    return lambda catalog: {
        (one.rank, frozenset(one.fields)) for one in catalog.get(family).table(name).shapes
    }


FACTS = [
    # 3.1 igb ntuple
    (error("igb_i350", "ntuple", "partial_mask"), None),
    (error("igb_i350", "ntuple", "vlan_mask"), "EINVAL"),
    (error("igb_i350", "ntuple", "action"), "EINVAL"),
    (error("igb_i350", "ntuple", "vf_target"), "EINVAL"),
    (error("igb_i350", "ntuple", "slot_any"), "EINVAL"),
    (error("igb_i350", "ntuple", "missing"), "EINVAL"),
    (error("igb_i350", "ntuple", "list_buffer"), "EMSGSIZE"),
    (of_table("igb_i350", "ntuple", "rows"), 16),
    (of_table("igb_i350", "ntuple", "combine"), "or"),
    (of_table("igb_i350", "ntuple", "erases_old"), False),
    (of_table("igb_i350", "ntuple", "duplicate.answer"), "EEXIST"),
    (of_table("igb_i350", "ntuple", "empty_rule"), "EINVAL"),
    (of_table("igb_i210", "ntuple", "empty_rule"), "EOPNOTSUPP"),
    (of_table("igb_i350", "ntuple", "actions"), {"queue"}),
    (mask("igb_i350", "ntuple", "ether", "eth_type"), "exact_or_ignored"),
    (mask("igb_i350", "ntuple", "ether", "eth_dst"), None),
    (mask("igb_i354", "ntuple", "ether", "eth_dst"), None),
    (of_table("igb_i354", "ntuple", "empty_rule"), "EINVAL"),
    (of_table("igb_i354", "flower", "needs.feature_default"), "on"),
    (value("igb_i354", "sriov"), None),
    (mask("igb_i210", "ntuple", "ether", "eth_dst"), "exact_or_ignored"),
    (lambda catalog: catalog.get("igb_i350").table("ntuple").limits[0].rows, 3),
    (lambda catalog: catalog.get("igb_i350").table("ntuple").limits[0].errno, "EINVAL"),
    (lambda catalog: catalog.get("igb_i350").table("ntuple").one_target_per_value[0].errno, "EEXIST"),
    (
        lambda catalog: catalog.get("igb_i350").table("ntuple").flow_types[0].field_errors["eth_src"],
        "EOPNOTSUPP",
    ),
    (lambda catalog: catalog.get("igb_82576").tables, ()),
    # 3.2 igb flower
    (mask("igb_i350", "flower", "ether", "vlan_vid"), "ignored"),
    (error("igb_i350", "flower", "partial_mask"), "EINVAL"),
    (of_table("igb_i350", "flower", "needs.feature_default"), "on"),
    # 3.3 igb VFs
    (value("igb_82576", "sriov.max_vfs"), 7),
    (value("igb_82576", "sriov.errors.too_many"), "EPERM"),
    (value("igb_82576", "rates.max_tx.link_speeds_bps"), (100_000_000, 1_000_000_000)),
    (value("igb_82576", "rates.max_tx.lost_on"), ("link_speed_change",)),
    (value("igb_82576", "rates.min_tx.errno"), "EINVAL"),
    (value("igb_i350", "rates.max_tx.errno"), "EOPNOTSUPP"),
    (value("igb_82576", "vf.link_state.supported"), "no"),
    (value("igb_82576", "statistics.vf"), None),
    (value("igb_i210", "sriov"), None),
    # 4.1, 4.2 ixgbe filters
    (of_table("ixgbe", "fdir", "rows"), 2046),
    (of_table("ixgbe", "fdir", "mask_model"), "one_mask_per_port"),
    (of_table("ixgbe", "fdir", "actions"), {"vf", "queue", "drop"}),
    (of_table("ixgbe", "fdir", "vf_queue"), True),
    (of_table("ixgbe", "fdir", "needs.feature_default"), "off"),
    (error("ixgbe", "fdir", "not_enabled"), "EOPNOTSUPP"),
    (error("ixgbe", "fdir", "second_mask"), "EINVAL"),
    (mask("ixgbe", "fdir", "tcp4", "tp_dst"), "any"),
    (mask("ixgbe", "fdir", "tcp4", "vlan_dei"), "ignored"),
    (mask("ixgbe", "fdir", "tcp4", "ip_tos"), "ignored"),
    (flow_types("ixgbe", "fdir"), ["tcp4", "udp4", "sctp4", "ip4"]),
    (of_table("ixgbe", "u32", "bank"), "fdir"),
    (of_table("ixgbe", "u32", "needs.vf_driver_on_host"), True),
    (of_table("ixgbe", "u32", "actions"), {"vf", "drop"}),
    # 4.3 ixgbe VFs
    (value("ixgbe", "sriov.max_vfs"), 63),
    (value("ixgbe", "vf.link_state.no_effect"), ("enable",)),
    (value("ixgbe", "vf.spoof_check.default"), True),
    (value("ixgbe", "rates.max_tx.smallest_bps"), 11_000_000),
    (value("ixgbe", "rates.max_tx.link_speeds_bps"), (10_000_000_000,)),
    # 5.1, 5.2 i40e filters
    (of_table("i40e", "fdir", "mask_model"), "one_input_set_per_flow_type"),
    (of_table("i40e", "fdir", "excludes"), ("flower",)),
    (error("i40e", "fdir", "partial_mask"), "EOPNOTSUPP"),
    (error("i40e", "fdir", "full"), "ENOSPC"),
    (error("i40e", "fdir", "flow_type"), "EOPNOTSUPP"),
    (of_table("i40e", "fdir", "duplicate.answer"), "EINVAL"),
    (lambda catalog: catalog.get("i40e").table("fdir").flow_types[0].together[0].errno, None),
    (error("i40e", "flower", "partial_mask"), "EIO"),
    (of_table("i40e", "flower", "needs.mqprio"), True),
    # 5.3 i40e VFs
    (value("i40e", "vf.busy_while_resetting"), "EAGAIN"),
    (value("i40e", "rates.max_tx.quantum_bps"), 50_000_000),
    (value("i40e", "rates.max_tx.below_smallest"), "raise"),
    (value("i40e", "rates.max_tx.rounding"), "down"),
    (value("i40e", "rates.max_tx.read_back"), "requested"),
    (value("i40e", "sriov.errors.assigned"), "EINVAL"),
    (value("i40e", "vf.errors.stats_in_reset"), "EBUSY"),
    # 6.1 ice ntuple
    (error("ice", "fdir", "slot_range"), "ENOSPC"),
    (error("ice", "fdir", "vf_target"), "EINVAL"),
    (error("ice", "fdir", "second_mask"), "EINVAL"),
    (mask("ice", "fdir", "tcp4", "vlan_vid"), "ignored"),
    (mask("ice", "fdir", "ether", "vlan_vid"), "exact"),
    (of_table("ice", "fdir", "duplicate.ignores"), {"vlan_vid", "vlan_dei", "vlan_pcp"}),
    (
        lambda catalog: next(
            one.duplicate_ignores for one in catalog.get("ice").table("fdir").flow_types if one.name == "ip6"
        ),
        {"ipv6_src", "ipv6_dst"},
    ),
    # 6.2, 6.3, 6.4 ice
    (of_table("ice", "flower_switchdev", "counters"), None),
    (of_table("ice", "flower_switchdev", "needs.feature_default"), "off"),
    (of_table("ice", "flower_legacy", "actions"), {"queue", "drop"}),
    (quirk("ice", "sixty_four_recipes"), True),
    (value("ice", "sriov.errors.too_many"), "EOPNOTSUPP"),
    (value("ice", "rates.min_tx.sum_within_link"), True),
    (value("ice", "rates.min_before_max"), True),
    (value("ice", "eswitch.errors.vfs_present"), "EOPNOTSUPP"),
    (value("ice", "rates.devlink.quantum_bps"), 1000),
    (value("ice", "rates.devlink.weight_range"), (1, 200)),
    (value("ice", "statistics.representor.direction"), "vf"),
    (value("ice", "vf.trust.mode_errno"), "EOPNOTSUPP"),
    # 7.1 mlx5 ntuple
    (of_table("mlx5", "ntuple", "rows"), 1024),
    (error("mlx5", "ntuple", "flow_type"), "ENOTSUPP"),
    (error("mlx5", "ntuple", "slot_any"), "ENOSPC"),
    (of_table("mlx5", "ntuple", "duplicate.allowed_copies"), 2),
    (of_table("mlx5", "ntuple", "priority"), "most_specific"),
    # 7.2 mlx5 flower
    (of_table("mlx5", "flower_fdb", "needs.eswitch_mode"), "switchdev"),
    (of_table("mlx5", "flower_fdb", "priority"), "honoured"),
    (of_table("mlx5", "flower_fdb", "counters.values"), {"packets", "bytes", "last_used"}),
    (error("mlx5", "flower_fdb", "missing"), "EINVAL"),
    # 7.3, 7.4 mlx5 VFs
    (value("mlx5", "rates.min_tx.meaning"), "share"),
    (value("mlx5", "vf.vlan.mode_errno"), "EOPNOTSUPP"),
    (value("mlx5", "vf.vlan.no_effect_in_mode"), (0,)),
    (value("mlx5", "eswitch.errors.vfs_present"), None),
    (value("mlx5", "eswitch.errors.flows_present"), "EBUSY"),
    (value("mlx5", "rates.devlink.rounding"), "refuse"),
    (value("mlx5", "rates.devlink.node_needs_mode"), "switchdev"),
    (value("mlx5", "statistics.representor.direction"), "switch"),
    # 8.1, 8.2 mlx4
    (of_table("mlx4", "ntuple", "priority"), "slot_ascending"),
    (of_table("mlx4", "ntuple", "rows"), 256),
    (lambda catalog: catalog.get("mlx4").table("ntuple").flow_types[0].implicit, ("eth_dst",)),
    (mask("mlx4", "ntuple", "ether", "eth_dst"), "required"),
    (value("mlx4", "sriov.method"), "module_param"),
    (value("mlx4", "sriov.sysfs_write"), "ENOENT"),
    (value("mlx4", "rates.max_tx.needs_port_vlan"), True),
    (value("mlx4", "vf.trust.supported"), "no"),
    (value("mlx4", "vf.errors.mac_zero_with_spoof_check"), "EPERM"),
    # 9 Falcon
    (of_table("sfc_falcon", "rx_ip", "rows"), 8192),
    (value("sfc_falcon", "sriov"), None),
    # 10 Siena
    (of_table("sfc_siena", "rx_ip", "rows"), 8192),
    (of_table("sfc_siena", "rx_mac", "rows"), 512),
    (of_table("sfc_siena", "rx_def", "rows"), 2),
    (of_table("sfc_siena", "rx_ip", "hash.search_depth"), 200),
    (of_table("sfc_siena", "rx_ip", "hash.function"), "siena_lfsr16"),
    (of_table("sfc_siena", "rx_ip", "hash.errno"), "EBUSY"),
    (of_table("sfc_siena", "rx_ip", "duplicate.answer"), "replace"),
    (of_table("sfc_siena", "rx_ip", "picker"), "driver"),
    (error("sfc_siena", "rx_ip", "combination"), "EPROTONOSUPPORT"),
    (error("sfc_siena", "rx_ip", "slot_given"), "EINVAL"),
    (error("sfc_siena", "rx_ip", "vf_target"), "EINVAL"),
    (
        shapes("sfc_siena", "rx_ip"),
        {
            (0, frozenset({"ipv4_src", "ipv4_dst", "tp_src", "tp_dst"})),
            (1, frozenset({"ipv4_dst", "tp_dst"})),
        },
    ),
    (shapes("sfc_siena", "rx_mac"), {(2, frozenset({"eth_dst", "vlan_vid"})), (3, frozenset({"eth_dst"}))}),
    (
        lambda catalog: catalog.get("sfc_siena").table("rx_ip").flow_types[0].fields["tp_dst"].value_errno,
        "EADDRNOTAVAIL",
    ),
    (value("sfc_siena", "sriov.sysfs_write"), "no_effect"),
    (value("sfc_siena", "sriov.max_vfs"), 127),
    (value("sfc_siena", "vf.errors.spoof_check_running"), "EBUSY"),
    (value("sfc_siena", "statistics.vf"), None),
    # 11 EF10
    (of_table("sfc_ef10", "filters", "mask_model"), "firmware_list"),
    (of_table("sfc_ef10", "filters", "shapes"), ()),
    (mask("sfc_ef10", "filters", "ether", "eth_dst"), "exact_or_group_bit"),
    (value("sfc_ef10", "vf.qos.max"), 0),
    (value("sfc_ef10", "sriov.errors.assigned"), "EBUSY"),
    # 12 EF100
    (of_table("sfc_ef100", "flower", "action_rules.errno"), "EINVAL"),
    (
        lambda catalog: catalog.get("sfc_ef100").table("flower").action_rules.order[:4],
        (
            frozenset({"tunnel_unset"}),
            frozenset({"pop_vlan"}),
            frozenset({"push_vlan"}),
            frozenset({"count"}),
        ),
    ),
    (value("sfc_ef100", "vf.mac.via"), "devlink"),
    (value("sfc_ef100", "statistics.representor.counts"), "slow_path"),
    # The paper
    (of_table("sfn5122f", "rx_ip", "actions"), {"vf", "queue", "drop"}),
    (of_table("sfn5122f", "rx_mac", "rows"), 512),
    (of_table("sfn5122f", "rx_ip", "counters"), None),
    (value("sfn5122f", "sriov.method"), "vendor"),
    (value("sfn5122f", "sriov.max_vfs"), None),
    (value("sfn5122f", "provenance.kind"), "paper"),
]


@pytest.mark.parametrize(("read", "expected"), FACTS, ids=[str(number) for number in range(len(FACTS))])
def test_the_document_states_the_fact(catalog, read, expected):
    assert read(catalog) == expected


def test_there_are_enough_of_them():
    assert len(FACTS) >= 60


def test_sfn5122f_differs_from_the_mainline_driver_by_its_targets(catalog):
    """A wildcard row, a full row and the MAC rows are those of the same hardware."""
    for name in ("rx_ip", "rx_mac"):
        paper, mainline = (catalog.get(family).table(name) for family in ("sfn5122f", "sfc_siena"))
        assert (paper.rows, paper.shapes, paper.hash) == (mainline.rows, mainline.shapes, mainline.hash)
        assert paper.actions - mainline.actions == {"vf"}


def test_rates_that_no_source_states_say_so(catalog):
    for rate in (catalog.get("sfn5122f").rates.min_tx, catalog.get("sfn5122f").rates.max_tx):
        assert rate.supported == "no"
        assert "no source states" in rate.source
