"""A live session on an emulated NIC in switchdev mode: what no rule takes is what the virtual switch receives."""

from __future__ import annotations

import numpy as np
import pytest

from nicoffload import open_nic
from nicoffload.errors import InvalidRequestError, PolicyError
from nicoffload.flexivoffload.flows import FlowState
from nicoffload.flexivoffload.ledger import Count
from nicoffload.flexivoffload.live import LiveSession
from nicoffload.flexivoffload.policy import parse_policy
from nicoffload.flexivoffload.vms import Vm
from nicoffload.model import FIRST_VF_PORT
from nicoffload.packets import PacketBatch, RawFrames, parse_frames

UPLINK, PF = 0, 1
START_NS = 10**18
BIG_ONES = "{version: 1, rules: [{id: big, promote: {pps: {up: 50, down: 5}}}]}"
NOTHING = parse_frames(
    RawFrames(
        data=b"",
        offset=np.empty(0, np.int64),
        captured_bytes=np.empty(0, np.int64),
        wire_bytes=np.empty(0, np.int64),
        time_ns=np.empty(0, np.int64),
        link_type=np.empty(0, np.int64),
    )
)


class World:
    """A NIC with packets in front of it: the virtual switch sees those that the NIC leaves to it.

    Args:
        nic: The NIC.
        bench: Makes packets.
    """

    def __init__(self, nic, bench):
        self.nic = nic
        self.bench = bench
        self.now_ns = START_NS
        self.sent = Count()
        self.missed = 0
        self._waiting = []

    def read(self) -> PacketBatch:
        if not self._waiting:
            return NOTHING
        return self._waiting.pop(0)

    def send(self, packets, vf=None):
        frames = [packet.frame() for packet in packets]
        sizes = np.array([len(frame) for frame in frames], np.int64)
        batch = parse_frames(
            RawFrames(
                data=b"".join(frames),
                offset=np.cumsum(sizes) - sizes,
                captured_bytes=sizes,
                wire_bytes=np.array([packet.size for packet in packets], np.int64),
                time_ns=np.full(len(packets), self.now_ns),
                link_type=np.ones(len(packets), np.int64),
            )
        )
        self.sent += Count(packets=len(packets), bytes=sum(packet.size for packet in packets))
        self.nic.packet_path.advance(self.now_ns - START_NS)
        port = UPLINK if vf is None else FIRST_VF_PORT + vf
        ports = self.nic.packet_path.receive(batch, 0, len(batch), port).port
        left = np.flatnonzero(ports == PF)
        if len(left):
            self._waiting.append(
                PacketBatch(
                    time_ns=batch.time_ns[left],
                    wire_bytes=batch.wire_bytes[left],
                    header_index=batch.header_index[left],
                    headers=batch.headers,
                )
            )

    def flow(self, count, *, dport=80, sport=40_000, vm=0, size=500, sent=False, flags=0x10):
        there, here = ("10.9.0.1", sport), (f"10.0.0.{vm + 1}", dport)
        (src, src_port), (dst, dst_port) = (here, there) if sent else (there, here)
        packet = self.bench.packet(
            time_ns=self.now_ns, src=src, dst=dst, sport=src_port, dport=dst_port, size=size, flags=flags
        )
        self.send([packet] * count, vf=vm if sent else None)


class Lab:
    """A world, and the session that watches it."""

    def __init__(self, nic, bench, policy, vms=None):
        self.world = World(nic, bench)
        self.session = LiveSession(
            nic,
            parse_policy(policy),
            bench.vms if vms is None else vms,
            self.world,
            clock_ns=lambda: self.world.now_ns,
        )

    def run(self, seconds, each=lambda: None, step_s=0.05):
        for _ in range(round(seconds / step_s)):
            self.world.now_ns += int(step_s * 1e9)
            each()
            self.session.step()

    def flows(self):
        return {flow.flow: flow for flow in self.session.report().flows}


@pytest.fixture
def start(bench):
    opened = []

    def make(policy, name="mock:mlx5", vms=None):
        opened.append(open_nic(name))
        return Lab(opened[-1], bench, policy, vms)

    yield make
    for nic in opened:
        nic.close()


def flow_to(lab, text):
    (found,) = [flow for name, flow in lab.flows().items() if text in name]
    return found


def test_big_flows_move_and_small_ones_stay(start):
    lab = start(BIG_ONES)

    def load():
        lab.world.flow(20)
        lab.world.flow(20, sent=True)
        lab.world.flow(1, dport=22, sport=50_000)

    lab.run(5, load)
    assert flow_to(lab, "tp_dst=80").state is FlowState.OFFLOADED
    assert flow_to(lab, "tp_dst=80").offloaded.packets > 1000
    assert flow_to(lab, "tp_dst=22").state is FlowState.ONLOAD
    assert flow_to(lab, "tp_dst=22").offloaded.packets == 0
    sent = [flow for flow in lab.flows().values() if flow.direction == "tx"]
    assert [flow.state for flow in sent] == [FlowState.OFFLOADED]
    assert lab.session.report().uncounted == 0


def test_both_paths_together_hold_what_was_sent(start):
    lab = start(BIG_ONES)
    lab.run(4, lambda: lab.world.flow(20))
    lab.run(3, lambda: lab.world.flow(1))
    lab.run(12)
    lab.run(4, lambda: lab.world.flow(15))
    lab.session.finish()
    report = lab.session.report()
    (flow,) = report.flows
    assert flow.moves >= 4
    assert flow.offloaded.packets > 0 < flow.onloaded.packets
    assert report.offloaded + report.onloaded == lab.world.sent
    assert report.vms[0].offloaded == report.offloaded


def test_a_flow_that_only_the_nic_sees_keeps_its_rule(start):
    lab = start(BIG_ONES)
    lab.run(30, lambda: lab.world.flow(10))
    (flow,) = lab.session.report().flows
    assert (flow.state, flow.moves) == (FlowState.OFFLOADED, 1)


def test_the_end_leaves_no_rule(start):
    lab = start("{version: 1, default: offload}")
    lab.run(1, lambda: lab.world.flow(3))
    assert len(lab.session.nic.flows()) == 1
    lab.world.flow(1, dport=8080)
    lab.session.step()  # the rule for this one is asked for, and not yet handed over
    lab.session.finish()
    assert lab.session.nic.flows() == ()
    lab.session.finish()


def test_run_steps_until_told_otherwise(start):
    lab = start(BIG_ONES)
    answers = iter([True, True, False])
    pauses = []
    lab.session.run(lambda: next(answers), pause=pauses.append)
    assert pauses == [0.05, 0.05]


def test_a_clock_that_goes_back_stops_nothing(start):
    lab = start(BIG_ONES)
    lab.run(2, lambda: lab.world.flow(20))
    lab.world.now_ns -= 3_000_000_000
    lab.run(6, lambda: lab.world.flow(20))
    assert lab.session.report().offloaded.packets > 0
    lab.session.finish()
    report = lab.session.report()
    assert report.offloaded + report.onloaded == lab.world.sent


def test_what_the_source_missed_is_told(start):
    lab = start(BIG_ONES)
    lab.world.missed = 7
    assert lab.session.report().missed == 7


def test_rules_for_many_flows_are_refused(start):
    with pytest.raises(InvalidRequestError, match="each flow needs one of its own") as error:
        start("{version: 1, granularity: [flow, destination]}")
    assert "granularity: [flow]" in error.value.hint


def test_a_nic_that_sends_past_the_switch_is_refused(start):
    with pytest.raises(InvalidRequestError, match="a dispatcher in each VM"):
        start(BIG_ONES, "mock:sfn5122f")


def test_a_nic_that_does_not_count_by_rule_is_refused(start):
    with pytest.raises(InvalidRequestError, match="flower_switchdev counts no packets"):
        start(BIG_ONES, "mock:ice")


def test_a_policy_that_names_no_vm_of_these_is_refused(start):
    with pytest.raises(PolicyError, match="no VM 'mail'"):
        start("{version: 1, rules: [{id: a, vm: mail, action: offload}]}")


def test_the_spoof_check_of_a_vm_with_one_interface_stays_on(bench):
    with open_nic("mock:mlx5") as nic:
        before = [state.spoof_check for state in nic.vfs()]
        World(nic, bench)
        LiveSession(
            nic,
            parse_policy(BIG_ONES),
            [Vm(name="a", vf=0, ips=("10.0.0.1",))],
            World(nic, bench),
            clock_ns=lambda: START_NS,
        )
        assert [state.spoof_check for state in nic.vfs()] == before
