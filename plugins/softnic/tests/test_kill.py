"""A process that is killed in the middle of something, and what the next one that opens the NIC finds."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap

import pytest
import softrig
from packets import ip4
from softrules import exact, placed, rule

from nicoffload.driver import RuleRef
from nicoffload.kernel.bpf import BpfMap
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.model import ToVf, VfConfig
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
    return rule(ToVf(vf=vf), **exact(ipv4_src=f"192.0.2.{vf + 1}"))


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
            driver = rig.driver()
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


def numbered(*numbers):
    return placed([rule(ToVf(vf=0), ipv4_dst=0x0A00_0000 + one) for one in numbers])


@pytest.mark.parametrize("call", ["update_many", "delete_many"])
def test_a_change_that_an_exception_cuts_off_leaves_no_row_behind(tmp_path, monkeypatch, call):
    """As Ctrl-C does, behind the write to the map and before what is known of it."""
    with (
        softrig.rig(tmp_path, vfs=1, rows=4) as rig,
        contextlib.closing(rig.driver()) as here,
        contextlib.closing(rig.driver()) as there,
    ):
        refs = here.flow_filters.create_many(numbered(1, 2))
        assert len(there.flow_filters.dump()) == 2
        filters = here.flow_filters
        change = {
            "update_many": lambda: filters.create_many(numbered(3)),
            "delete_many": lambda: filters.destroy_many(refs[:1]),
        }[call]
        whole = getattr(BpfMap, call)

        def cut_off(*arguments):
            whole(*arguments)
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(BpfMap, call, cut_off)
            with pytest.raises(KilledError):
                change()
        left = 3 if call == "update_many" else 1
        for driver in (here, there):
            assert driver.flow_filters.tables()[0].in_use == len(driver.flow_filters.dump()) == left
        outcomes = there.flow_filters.create_many(numbered(*range(10, 14)))
        assert sum(isinstance(one, RuleRef) for one in outcomes) == 4 - left
        assert len(here.flow_filters.dump()) == 4


def test_a_change_that_a_kill_cuts_off_is_seen_by_who_has_the_nic_open(tmp_path):
    with softrig.rig(tmp_path, vfs=1, rows=4) as rig, contextlib.closing(rig.driver()) as here:
        here.flow_filters.create_many(numbered(1))
        code = f"""
            import os, signal
            from nicoffload import load_registry
            from nicoffload.driver import Placement
            from nicoffload.kernel.bpf import BpfMap
            from nicoffload.model import FlowRule, Match, ToVf
            whole = BpfMap.update_many
            def killed(*arguments):
                whole(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            BpfMap.update_many = killed
            rule = FlowRule(match=Match.of(ipv4_dst="10.9.9.9"), actions=(ToVf(vf=0),))
            driver = load_registry(only=["softnic"]).open({rig.nic_name!r})
            driver.flow_filters.create_many([Placement(rule=rule, table="flows", flow_type="ip4")])
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert here.flow_filters.tables()[0].in_use == 2
        outcomes = here.flow_filters.create_many(numbered(2, 3, 4))
        assert [isinstance(one, RuleRef) for one in outcomes] == [True, True, False]
        assert len(here.flow_filters.dump()) == 4
