"""What Linux' drivers show to every user and no profile says: their features, ports and devlink objects.

Each fact is of Linux 6.12 and names its file below ``drivers/net``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.profiles.types import NicProfile

NTUPLE, TC_OFFLOAD, L2_FORWARD = "rx-ntuple-filter", "hw-tc-offload", "l2-fwd-offload"
PROFILE_FEATURES: Mapping[str, str] = MappingProxyType({"ntuple": NTUPLE, "hw-tc-offload": TC_OFFLOAD})
"""A profile's name of a feature, which is ethtool's, to the kernel's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """One driver.

    Args:
        devlink: Whether it registers with devlink.
        devlink_info: Whether it tells devlink more of itself than its name.
        port_flavours: Whether it tells devlink what its ports are.
        ntuple_feature: Whether ``rx-ntuple-filter`` is on at first; None where it is fixed off. A profile that names
            the feature has the say.
        ntuple_off_erases: Whether turning it off deletes the rules.
        tc_fixed: Whether ``hw-tc-offload`` can't be changed.
        representor_tc: Whether ``hw-tc-offload`` is on at first on representors.
        table_size_in_count: Whether GRXCLSRLCNT tells the size of the table; else GRXCLSRLALL does where it can.
        table_size_in_list: Whether GRXCLSRLALL does.
        port_name: Template of the PF's port name; empty for none.
        pf_port: Number of the PF's devlink port.
        vf_port: Number of VF 0's devlink port.
        vf_hw_addr: Whether the devlink port of a VF has a hardware address to set.
        pf_hw_addr: Whether that of the PF is refused by the driver itself, not for want of an operation.
        first_port_number: Number that devlink gives the first physical port.
        vf_rate_in_switchdev: Whether rtnetlink sets rates of VFs in switchdev mode, too.
        switch_in_legacy: Whether the PF names its switch outside switchdev mode, too.
    """

    devlink: bool = False
    devlink_info: bool = True
    port_flavours: bool = True
    ntuple_feature: bool | None = None
    ntuple_off_erases: bool = True
    tc_fixed: bool = False
    representor_tc: bool = False
    table_size_in_count: bool = False
    table_size_in_list: bool = False
    port_name: str = ""
    pf_port: int = 0
    vf_port: int = 1
    vf_hw_addr: bool = False
    pf_hw_addr: bool = False
    first_port_number: int = 0
    vf_rate_in_switchdev: bool = True
    switch_in_legacy: bool = False


_FACTS: Mapping[str, DriverFacts] = MappingProxyType(
    {
        # ethernet/intel/igb: igb_main.c igb_probe; igb_ethtool.c igb_get_ethtool_nfc_all
        "igb": DriverFacts(ntuple_feature=False, table_size_in_list=True),
        # ethernet/intel/ixgbe/ixgbe_ethtool.c: ixgbe_get_ethtool_fdir_all
        "ixgbe": DriverFacts(ntuple_feature=False, table_size_in_list=True),
        # ethernet/intel/i40e/i40e_ethtool.c: i40e_get_rxnfc; i40e_devlink.c has info alone
        "i40e": DriverFacts(devlink=True, ntuple_feature=True, table_size_in_count=True),
        # ethernet/intel/ice: ice_ethtool.c ice_get_rxnfc; ice_repr.c ice_repr_reg_netdev; devlink/devlink_port.c
        "ice": DriverFacts(
            devlink=True,
            ntuple_feature=True,
            table_size_in_count=True,
            port_name="p{port}",
            vf_port=2,
            vf_hw_addr=True,
            switch_in_legacy=True,
        ),
        # ethernet/mellanox/mlx4: en_ethtool.c mlx4_en_get_rxnfc; en_netdev.c mlx4_en_init_netdev; main.c: devlink has
        # parameters and reload alone
        "mlx4_core": DriverFacts(
            devlink=True,
            devlink_info=False,
            port_flavours=False,
            pf_port=1,
            ntuple_feature=False,
            ntuple_off_erases=False,
            table_size_in_list=True,
        ),
        # ethernet/mellanox/mlx5/core: en_fs_ethtool.c mlx5e_ethtool_get_all_flows; en_rep.c mlx5e_build_rep_netdev;
        # en_main.c set_feature_arfs; esw/devlink_port.c; en/devlink.c mlx5e_devlink_port_register
        "mlx5_core": DriverFacts(
            devlink=True,
            ntuple_feature=False,
            ntuple_off_erases=False,
            representor_tc=True,
            table_size_in_list=True,
            port_name="p{port}",
            pf_port=65535,
            vf_hw_addr=True,
            switch_in_legacy=True,
        ),
        # ethernet/sfc: ethtool_common.c efx_ethtool_get_rxnfc; efx_devlink.c; ef100_rep.c; ef100_nic.c
        "sfc": DriverFacts(
            devlink=True,
            ntuple_feature=True,
            tc_fixed=True,
            representor_tc=True,
            table_size_in_count=True,
            port_name="p{port}",
            vf_hw_addr=True,
            pf_hw_addr=True,
        ),
        # ethernet/sfc/siena: ethtool_common.c; efx_common.c efx_siena_get_phys_port_name
        "sfc-siena": DriverFacts(ntuple_feature=True, table_size_in_count=True, port_name="p{port}"),
        # ethernet/sfc/falcon/ethtool.c
        "sfc-falcon": DriverFacts(ntuple_feature=True, table_size_in_count=True),
        # netdevsim/dev.c: nsim_dev_port_add, nsim_dev_port_index; netdevsim/netdev.c: nsim_setup, nsim_set_vf_rate
        "netdevsim": DriverFacts(
            devlink=True,
            port_name="p{number}",
            first_port_number=1,
            vf_port=128,
            vf_rate_in_switchdev=False,
            switch_in_legacy=True,
        ),
    }
)
_UNKNOWN = DriverFacts()


def facts(profile: NicProfile) -> DriverFacts:
    """Return what is known of a profile's driver; the least that a driver can have for another one."""
    return _FACTS.get(profile.driver, _UNKNOWN)


def has_tc_offload(profile: NicProfile) -> bool:
    """Tell whether the driver takes filters of tc, so that ``hw-tc-offload`` means something."""
    return profile.driver == "netdevsim" or any(
        table.mechanism in {"flower", "u32"} for table in profile.tables
    )
