"""A process that is killed in the middle of something, and what the next one that opens the NIC finds."""

from __future__ import annotations

import pytest
import softrig
from packets import ip4

from nicoffload import load_registry
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.model import FlowRule, Match, ToVf, VfConfig
from nicoffload_softnic import names, ports
from nicoffload_softnic.u32 import pairs

softrig.skip_without_root()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]


MAC = 0x0200_0000_0007


class KilledError(BaseException):
    """The process ends here: nothing may take it for an error and go on."""


def end_here(*_args, **_options):
    raise KilledError


def flow(vf):
    return FlowRule(
        match=Match.of(
            ipv4_src=f"192.0.2.{vf + 1}", ipv4_dst="10.0.0.1", ip_proto=17, tp_src=1000, tp_dst=2000
        ),
        actions=(ToVf(vf=vf),),
    )


def packet(vf):
    """Return what the rule to a VF takes; its address is that of VF 0."""
    frame = ip4(src=f"192.0.2.{vf + 1}")
    return MAC.to_bytes(6, "big") + frame[6:]


@pytest.mark.parametrize(
    ("data_path", "place", "call"),
    [
        ("ebpf", ports, "add_pair"),
        ("ebpf", ports, "hang"),
        ("u32", pairs, "add_vf"),
        ("u32", pairs, "lead_from_representor"),
    ],
)
def test_a_vf_whose_reset_was_cut_off_is_made_whole_by_the_next_open(
    tmp_path, monkeypatch, data_path, place, call
):
    with softrig.rig(tmp_path, data_path=data_path) as rig:
        with rig.open() as nic:
            nic.add_flows([flow(0), flow(1)])
            nic.configure_vfs([VfConfig(vf=0, mac=MAC)])
        with LinuxKernel().namespace(f"/run/netns/{rig.home}"):
            driver = load_registry(only=["softnic"]).open(rig.nic_name)
            with monkeypatch.context() as patch:
                patch.setattr(place, call, end_here)
                with pytest.raises(KilledError):
                    driver.virtual_functions.reset(0)
            driver.close()
            with rig.open() as nic:
                assert {each.rule.actions for each in nic.flows()} == {(ToVf(vf=0),), (ToVf(vf=1),)}
                assert [state.mac for state in nic.vfs()] == [MAC, 0]
        ifname = names.vf(rig.name, 0)
        assert "02:00:00:00:00:07" in softrig.run(f"ip -n {rig.home} link show {ifname}")
        softrig.run(f"ip -n {rig.home} link set dev {ifname} up")
        rig.taps["vf0"].close()
        rig.taps["vf0"] = softrig.Tap(rig.home, ifname)
        for vf in range(2):
            frame = packet(vf)
            assert rig.sent_and_seen("wire", frame) == {f"vf{vf}": [frame]}
        rig.taps["vf0"].close()
