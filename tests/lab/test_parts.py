"""The parts of the lab that need neither root nor packets."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from examples.lab import bench, flows, needs, topology
from examples.lab.counters import CpuMeter, Traffic, cpu_ns, parse_net_dev
from examples.lab.iperf import Received, parse_client
from examples.lab.plan import PathsStep, PeakStep, RateStep, TcpStep, UdpStep, duration_s, steps
from examples.lab.run import END_SIGNALS, end_in_order, ends_with_us
from examples.lab.shell import LabError, Processes, output_of, run, wait_for
from examples.lab.vswitch import OpenVSwitch, packet_socket_drops
from nicoffload import open_nic
from nicoffload.codec import format_rule
from nicoffload.compiler import Refusal
from nicoffload.flexivoffload.policy import parse_policy
from nicoffload.flexivoffload.policy.types import Granularity

NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier comp.
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0     0
nlabpf:3000 20 0 4 0 0 0 0 500 5 0 0 0 0 0 0
"""


def test_counters_of_interfaces_are_read():
    assert parse_net_dev(NET_DEV)["nlabpf"] == Traffic(
        rx_bytes=3000, rx_packets=20, rx_dropped=4, tx_bytes=500, tx_packets=5
    )


def test_counters_are_told_from_one_point_in_time_on():
    now, before = Traffic(rx_bytes=9, tx_packets=4), Traffic(rx_bytes=5, tx_packets=4)
    assert now.since(before) == Traffic(rx_bytes=4)


def test_cpu_time_is_told_by_group():
    own = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        meter = CpuMeter({"busy": [own.pid], "nobody": []})
        wait_for(lambda: meter.seconds()["busy"] > 0.02, "the process did not run")
        assert meter.seconds()["nobody"] == 0
    finally:
        own.kill()
        own.wait()
    assert cpu_ns(own.pid) == 0


def client(**changes):
    end = {"sum_received": {"bits_per_second": 9.5e7}, "sum_sent": {"retransmits": 2}}
    return json.dumps({"end": end, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (client(), Received(goodput_bps=9.5e7, retransmits=2)),
        (client(error="unable to connect"), Received(error="unable to connect")),
        ("iperf3: parameter error", Received(error="iperf3: parameter error")),
        ("", Received(error="iperf3 said nothing")),
    ],
)
def test_what_iperf3_says_is_read(text, expected):
    assert parse_client(text) == expected


@pytest.mark.parametrize("there", [set(), {"iperf3", "tc"}, set(needs.PROGRAMS)])
def test_what_is_missing_is_named_by_package(there):
    found = needs.missing(lambda program: program if program in there else None)
    assert found == sorted({package for program, package in needs.PROGRAMS.items() if program not in there})


def test_without_root_one_line_says_what_to_do_instead(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"needs root.*sudo make lab.*make demo") as error:
        needs.check_root()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("quick", "most_s"), [(True, 120), (False, 600)])
def test_a_run_takes_the_time_that_is_promised(quick, most_s):
    whole = [*steps("ovs", quick=quick, vms=12), *steps("bridge", quick=quick, vms=12)]
    assert sum(duration_s(step) for step in whole) < most_s
    assert {type(step) for step in whole} == {RateStep, PeakStep, UdpStep, TcpStep, PathsStep}


def test_a_whole_run_has_what_the_issue_asks():
    plan = list(steps("ovs", quick=False, vms=12))
    for mode in ("vswitch", "offloaded"):
        counts = [
            step.vms
            for step in plan
            if isinstance(step, RateStep) and (step.mode, step.segments) == (mode, "gso")
        ]
        assert counts == list(range(1, 13))
    assert 2000 in [step.switches for step in plan if isinstance(step, UdpStep)]
    assert any(isinstance(step, RateStep) and step.segments == "mtu" and step.vms == 12 for step in plan)


@pytest.mark.parametrize("vms", range(1, 13))
@pytest.mark.parametrize("quick", [True, False])
def test_no_step_asks_for_more_vms_than_there_are(vms, quick):
    for vswitch in ("ovs", "bridge"):
        plan = list(steps(vswitch, quick=quick, vms=vms))
        assert all(step.vms <= vms for step in plan if isinstance(step, RateStep | PathsStep))
        measured = [step for step in plan if isinstance(step, RateStep)]
        assert len(set(measured)) == len(measured)


def lab_vms(count):
    return [topology.LabVm(number=number, mac="02:00:00:00:00:01", pid=1) for number in range(1, count + 1)]


def test_a_flow_has_a_rule_each_way():
    there, back = flows.rules(lab_vms(1), flows.TCP, flows.SERVER_PORT)
    assert format_rule(there).startswith(
        "tcp,nw_src=10.97.0.1,nw_dst=10.97.1.1,tp_src=40001,tp_dst=5201 actions=vf:0"
    )
    assert "tp_src=5201,tp_dst=40001" in format_rule(back)
    assert "in_port" in format_rule(back)


def test_a_nic_with_exact_matches_takes_the_rules_of_all_vms():
    with open_nic("mock:mlx5,vfs=12") as nic:
        asked = flows.rules(lab_vms(12), flows.TCP, flows.SERVER_PORT)
        assert not [answer for answer in nic.check_all(asked) if isinstance(answer, Refusal)]


def test_names_of_devices_fit_into_linux():
    vm = lab_vms(12)[-1]
    for name in (vm.port, vm.representor, topology.PF_PORT, topology.WIRE_PORT):
        assert len(name) <= 15
    assert vm.as_vm().ips == ("10.97.1.12",)


def test_the_manager_s_policy_is_one_of_flows():
    from examples.lab.manage import POLICY

    assert parse_policy(POLICY).granularity == (Granularity.FLOW,)


def test_a_program_that_fails_is_named_with_its_last_words():
    with pytest.raises(LabError, match=r"`sh -c .*` failed: no such thing"):
        run("sh", "-c", "echo first; echo no such thing >&2; exit 3")
    with pytest.raises(LabError, match="nothing-like-it is not installed"):
        run("nothing-like-it")


def test_what_runs_beside_us_ends_with_us():
    with Processes() as processes:
        sleeper = processes.start(["sleep", "100"])
        speaker = processes.start(["sh", "-c", "read word; echo got $word"])
        assert output_of(speaker, "the speaker", 10, say="this\n") == "got this\n"
    assert sleeper.returncode == -9


def test_the_lab_uses_what_anybody_can_use(repo_root):
    public = ("nicoffload.codec", "nicoffload.errors", "nicoffload.model", "nicoffload.packets")
    for path in (repo_root / "examples/lab").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nicoffload"):
                module = node.module or ""
                assert module in ("nicoffload", *public) or module.startswith("nicoffload.flexivoffload."), (
                    path
                )


SOCKETS = """\
p_raw UNCONN 0 0    *:nlabpf  *    skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d458)
p_raw UNCONN 0 0    *:nlabr0  *    skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d2)
p_raw UNCONN 0 0    *:*       *    skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d99)
p_dgr UNCONN 0 0    *:eth0    *    skmem:(r0,rb212992,t0,tb212992,f0,w0,o0,bl0,d7)
"""


def test_what_the_switch_s_own_sockets_dropped_is_counted():
    assert packet_socket_drops(SOCKETS, "nlab") == 460
    assert packet_socket_drops("", "nlab") == 0


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Namespaces that `ip netns` and the like are made to believe in; and what was done to them."""
    made = SimpleNamespace(namespaces=[], fails="", done=[])

    def run(*words, **_):
        if words == ("ip", "netns", "list"):
            return "".join(f"{name} (id: 1)\n" for name in made.namespaces)
        made.done.append(words)
        if made.fails and made.fails in words:
            raise LabError(f"no {made.fails}")
        return ""

    monkeypatch.setattr(topology, "MARKS", tmp_path / "made")
    monkeypatch.setattr(topology, "run", run)
    topology.MARKS.mkdir()
    return made


def marked(*names):
    for name in names:
        (topology.MARKS / name).touch()


@pytest.mark.parametrize(
    ("theirs", "cure"),
    [
        (topology.HOST, f"ip netns delete {topology.HOST}"),
        (topology.NIC_NETNS, "nicoffload soft destroy nlab"),
    ],
)
def test_what_the_lab_did_not_make_is_left_alone(machine, theirs, cure):
    machine.namespaces = [topology.WIRE, theirs]
    marked(topology.WIRE)
    with pytest.raises(LabError, match=f"did not make it.*`{cure}`") as error:
        topology.refuse_others()
    assert "\n" not in str(error.value)
    assert topology.clean_up()
    assert [words[3] for words in machine.done if "delete" in words] == [topology.WIRE]
    assert not any("destroy" in words for words in machine.done)


def test_what_an_earlier_run_left_is_removed_with_its_mark(machine):
    machine.namespaces = [topology.WIRE, topology.NIC_NETNS]
    marked(*machine.namespaces)
    topology.refuse_others()
    assert topology.clean_up()
    assert list(topology.MARKS.iterdir()) == []


@pytest.mark.parametrize("fails", ["pids", "destroy", topology.WIRE])
def test_a_step_of_the_clean_up_that_fails_keeps_no_other(machine, fails):
    machine.namespaces = [topology.WIRE, topology.HOST, topology.NIC_NETNS]
    machine.fails = fails
    marked(*machine.namespaces)
    with pytest.raises(LabError, match=f"no {fails}"):
        topology.clean_up()
    assert len(machine.done) == 2 + 1 + 2
    left = {"destroy": [topology.NIC_NETNS], topology.WIRE: [topology.WIRE]}
    assert [path.name for path in topology.MARKS.iterdir()] == left.get(fails, [])


def test_a_terminal_that_is_closed_ends_the_lab_in_order_but_not_below_nohup():
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_in_order()
        assert signal.getsignal(signal.SIGTERM) is ends_with_us
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        end_in_order()
        assert signal.getsignal(signal.SIGHUP) is ends_with_us
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_switch_that_died_hides_no_error(monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(OpenVSwitch, "pids", (ended.pid,))
    with pytest.raises(LabError, match="the cause"), OpenVSwitch().prompt():
        raise LabError("the cause")


def test_a_program_that_says_nothing_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(bench, "READY_S", 0)
    reader, writer = os.pipe()
    with os.fdopen(reader) as silent, os.fdopen(writer, "w"):
        processes = SimpleNamespace(start=lambda *_, **__: SimpleNamespace(stdout=silent))
        lab = bench.Lab(topology=None, nic=None, processes=processes, vswitch=None, softirqs=())
        with pytest.raises(LabError, match="udp did not say within 0 s"):
            lab.program("udp", netns="")
