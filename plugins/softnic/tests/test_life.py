"""A NIC from its making to its end: capacity, counters, crashes, other processes, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket

import pytest
import softrig
from packets import ip4
from softrules import placed

from nicoffload.errors import (
    ConflictError,
    DeviceGoneError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.kernel.bpf import await_readers
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.model import FlowRule, Match, RateLimit, ToUplink, ToVf
from nicoffload_softnic import build, layout, names, ports

softrig.skip_without_root()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]


def flow(number, vf=0, **changes):
    match = {"ipv4_src": 0xC000_0200 + number, "ipv4_dst": "10.0.0.1", "ip_proto": 17} | changes
    return FlowRule(match=Match.of(**match), actions=(ToVf(vf=vf),))


@pytest.mark.parametrize("has_tcx", [True, False])
def test_packets_find_their_way_with_tcx_and_without(tmp_path, monkeypatch, has_tcx):
    """As before Linux 6.6, where the filter of tc decides."""
    if not has_tcx:
        monkeypatch.setattr(ports, "attach_ingress", lambda *_: False)
    with softrig.rig(tmp_path, vfs=1) as rig, rig.open() as nic:
        nic.add_flows([flow(number=1), FlowRule(match=Match.of(in_port="vf:0"), actions=(ToUplink(),))])
        assert rig.sent_and_seen("wire", ip4(src="192.0.2.1")) == {"vf0": [ip4(src="192.0.2.1")]}
        assert rig.sent_and_seen("wire", ip4(src="192.0.2.2")) == {"pf": [ip4(src="192.0.2.2")]}
        assert rig.sent_and_seen("vf0", ip4()) == {"wire": [ip4()]}
        assert rig.sent_and_seen("r0", ip4()) == {"vf0": [ip4()]}
        nic.set_rates({0: RateLimit(max_tx_bps=100_000_000)})
        assert rig.sent_and_seen("vf0", ip4()) == {"wire": [ip4()]}


def test_a_table_is_full_at_exactly_its_rows(tmp_path):
    with softrig.rig(tmp_path, vfs=1, rows=300) as rig:
        driver = rig.driver()
        filters = driver.flow_filters
        outcomes = filters.create_many(placed([flow(number) for number in range(310)]))
        refused = [one for one in outcomes if isinstance(one, Exception)]
        assert [isinstance(one, Exception) for one in outcomes] == [False] * 300 + [True] * 10
        assert {type(one) for one in refused} == {ResourceExhaustedError}
        assert (refused[0].limit, refused[0].in_use) == (300, 300)
        assert filters.tables()[0].in_use == len(filters.dump()) == 300
        assert filters.destroy_many(outcomes[:1]) == [None]
        (again,) = filters.create_many(placed([flow(400)]))
        assert not isinstance(again, Exception)
        (full,) = filters.create_many(placed([flow(401, eth_dst="02:00:00:00:00:01")]))
        assert isinstance(full, ResourceExhaustedError)
        driver.close()


def test_counters_are_exactly_what_was_sent(softnic, nic):
    chooser = random.Random(7)
    sent = {}
    added = nic.add_flows([flow(number, vf=number % 2) for number in range(40)]).installed
    for _ in range(600):
        number, size = chooser.randrange(40), chooser.randrange(18, 1400)
        frame = ip4(src=f"192.0.2.{number}", payload=b"z" * size, sport=chooser.randrange(65536))
        softnic.send("wire", frame)
        packets, octets = sent.get(number, (0, 0))
        sent[number] = (packets + 1, octets + len(frame))
    softnic.sent_and_seen("wire", ip4(src="198.51.100.1"))  # what was sent before has arrived then
    counters = nic.flow_stats([each.rule.rule_id for each in added])
    found = {number: (int(counters.packets[number]), int(counters.bytes[number])) for number in range(40)}
    assert found == {number: sent.get(number, (0, 0)) for number in range(40)}


def test_a_slot_that_is_used_again_counts_from_nothing_in_a_new_epoch(tmp_path):
    with softrig.rig(tmp_path, vfs=1, rows=1) as rig:
        driver = rig.driver()
        filters = driver.flow_filters
        epochs = []
        for number in range(3):
            (ref,) = filters.create_many(placed([flow(number)]))
            for _ in range(number + 1):
                assert rig.sent_and_seen("wire", ip4(src=f"192.0.2.{number}")) != {}
            counters = filters.read_counters([ref])
            assert int(counters.packets[0]) == number + 1
            epochs.append(int(counters.epoch[0]))
            filters.destroy_many([ref])
            assert not filters.read_counters([ref]).valid[0]
        assert len(set(epochs)) == 3
        driver.close()


def test_the_same_match_twice_and_the_same_id_twice_are_refused(softnic, nic):
    driver = softnic.driver()
    first = flow(1)
    twin = FlowRule(match=first.match, actions=(ToVf(vf=1),))
    same_id = FlowRule(match=flow(2).match, actions=first.actions, rule_id=first.rule_id)
    outcomes = driver.flow_filters.create_many(placed([first, twin, same_id]))
    assert [type(one) for one in outcomes[1:]] == [ConflictError, ConflictError]
    again = driver.flow_filters.create_many(placed([twin, same_id]))
    assert [type(one) for one in again] == [ConflictError, ConflictError]
    assert str(first.rule_id) == again[0].existing
    assert driver.flow_filters.destroy_many([outcomes[0]]) == [None]
    (answer,) = driver.flow_filters.destroy_many([outcomes[0]])
    assert isinstance(answer, NotFoundError)
    driver.close()


def test_the_33rd_combination_of_masks_is_refused_and_an_empty_one_makes_room(softnic, nic):
    driver = softnic.driver()
    filters = driver.flow_filters
    rules = [
        FlowRule(match=Match.of(eth_type=0x0800, ipv4_dst=f"10.0.0.0/{bits}"), actions=(ToVf(vf=0),))
        for bits in range(1, 33)
    ]
    outcomes = filters.create_many(placed(rules))
    assert not any(isinstance(one, Exception) for one in outcomes)
    (refused,) = filters.create_many(placed([flow(1)]))
    assert isinstance(refused, ResourceExhaustedError)
    assert refused.limit == layout.MAX_CLASSES
    filters.destroy_many(outcomes[:1])
    (taken,) = filters.create_many(placed([flow(1)]))
    assert not isinstance(taken, Exception)
    filters.destroy_many([*outcomes[1:], taken])
    driver.close()


def test_two_processes_see_each_others_rules(softnic, nic):
    here = softnic.driver()
    assert here.flow_filters.dump() == []
    code = f"""
        from nicoffload import open_nic
        from nicoffload.model import FlowRule, Match, ToVf
        with open_nic({softnic.nic_name!r}, state_dir={str(softnic.state_dir)!r}) as nic:
            nic.add_flows([FlowRule(match=Match.of(ipv4_dst="10.9.9.9"), actions=(ToVf(vf=0),))])
    """
    with softrig.run_child(code) as child:
        assert child.wait(60) == 0
    (found,) = here.flow_filters.dump()
    assert found.rule.match == Match.of(ipv4_dst="10.9.9.9")
    assert here.flow_filters.tables()[0].in_use == 1
    here.flow_filters.destroy_many([found.ref])
    here.close()


def test_without_its_journal_the_rules_are_ours_by_their_ids(tmp_path):
    with softrig.rig(tmp_path / "state", vfs=1) as rig:
        with rig.open() as nic:
            added = nic.add_flows([flow(1), flow(2)]).installed
        rig.state_dir = tmp_path / "another"
        with rig.open() as nic:
            assert {each.rule for each in nic.recovery.adopted} == {each.rule for each in added}
            nic.remove_flows([each.rule.rule_id for each in nic.flows()])
            assert nic.flows() == ()


def devices():
    return set(softrig.run("ip -br link").split())


def test_nothing_is_left_behind_wherever_its_devices_went(tmp_path):
    with softrig.rig(tmp_path, vfs=2) as rig:
        inside = devices()
        build.destroy(LinuxKernel(), rig.name)
        assert not any(rig.name in word for word in devices())
        assert any(rig.name in word for word in inside)
        assert rig.name not in softrig.run(f"ip -n {rig.vms[0]} -br link")
        assert names.namespace_of(rig.name) not in LinuxKernel().namespaces()
        with pytest.raises(NotFoundError, match="no such software NIC"):
            rig.open()
    # By name, for other tests make namespaces meanwhile.
    assert not any(rig.name in name for name in LinuxKernel().namespaces())


def test_a_destroyed_nic_says_so_to_who_has_it_open(tmp_path):
    with softrig.rig(tmp_path, vfs=1) as rig, rig.open() as nic:
        build.destroy(LinuxKernel(), rig.name)
        with pytest.raises(DeviceGoneError, match="was destroyed"):
            nic.stats()


def test_a_nic_whose_making_was_cut_off_is_shown_and_can_be_removed(tmp_path):
    with softrig.rig(tmp_path, vfs=1) as rig:
        driver = rig.driver()
        driver.device.config["version"] = 0
        driver.close()
        (found,) = [one for one in build.find_all(LinuxKernel()) if one.name == rig.name]
        assert "cut off" in found.problem
        with pytest.raises(KernelError, match="cut off") as caught:
            rig.open()
        assert f"soft destroy {rig.name}" in caught.value.hint
        with pytest.raises(ConflictError):
            build.create(LinuxKernel(), build.Wanted(name=rig.name))
        build.destroy(LinuxKernel(), rig.name)
    kernel, name = LinuxKernel(), f"x{os.getpid() % 10000:x}"
    kernel.add_namespace(names.namespace_of(name))  # all that is there when the maker is killed early
    assert [one.problem for one in build.find_all(kernel) if one.name == name] != [""]
    build.destroy(kernel, name)


def test_vfs_come_and_go_while_others_carry_packets(softnic, nic):
    nic.add_flows([flow(1, vf=0)])
    frame = ip4(src="192.0.2.1")
    nic.set_vf_count(5)
    assert [state.vf for state in nic.vfs()] == [0, 1, 2, 3, 4]
    assert f"{softnic.name}vf4" in softrig.run("ip -br link")
    assert softnic.sent_and_seen("wire", frame) == {"vf0": [frame]}
    nic.set_rates({4: RateLimit(max_tx_bps=1_000_000)})
    nic.set_vf_count(2)
    assert f"{softnic.name}vf4" not in softrig.run("ip -br link")
    assert softnic.sent_and_seen("wire", frame) == {"vf0": [frame]}


@pytest.mark.parametrize(
    "wanted", [{"vfs": -1}, {"vfs": 129}, {"rows": 0}, {"link_bps": 5}, {"name": "Lab_0"}]
)
def test_a_wrong_number_or_name_makes_nothing(wanted):
    kernel = LinuxKernel()
    before = kernel.namespaces()
    with pytest.raises(InvalidRequestError):
        build.create(kernel, build.Wanted(**({"name": "wrong0"} | wanted)))
    assert kernel.namespaces() == before


def test_where_membarrier_is_refused_a_map_of_maps_is_waited_for(tmp_path, monkeypatch):
    """As with `nohz_full`, where the kernel answers EINVAL (kernel/sched/membarrier.c)."""

    def refused(_kernel):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(LinuxKernel, "await_readers", refused)
    with softrig.rig(tmp_path, vfs=1) as rig, rig.open() as nic:
        nic.add_flows([flow(1)])
        assert len(nic.flows()) == 1
        with contextlib.closing(rig.driver()) as driver:
            monkeypatch.setattr(LinuxKernel, "bpf", refused_call)
            with pytest.raises(NotSupportedError) as caught:
                await_readers(driver.device.kernel)
    assert "membarrier(2) answers EINVAL" in caught.value.reasons[0].message


def refused_call(_kernel, _command, _attributes):
    raise OSError(errno.EINVAL, "Invalid argument")


def test_what_a_full_queue_dropped_stays_counted_when_the_rate_is_cleared(tmp_path):
    with softrig.rig(tmp_path, vfs=1) as rig, rig.open() as nic:

        def tx_dropped():
            (found,) = [one for one in nic.stats() if one.name == "vf:0"]
            return found.tx_dropped, found.epoch

        rig.taps["vf0"].socket.setsockopt(
            socket.SOL_SOCKET, 32, 8 << 20
        )  # SO_SNDBUFFORCE: the queue is within it
        nic.set_rates({0: RateLimit(max_tx_bps=1_000_000)})
        for _ in range(1500):  # more than a large packet's worth at once, and a queue of 1000
            rig.send("vf0", ip4(payload=b"z" * 1400))
        limited, epoch = tx_dropped()
        assert limited > 0
        nic.set_rates({0: RateLimit()})
        assert tx_dropped() == (limited, epoch)
        nic.set_rates({0: RateLimit(max_tx_bps=1_000_000)})
        assert tx_dropped()[0] >= limited
        nic.set_vf_count(0)
        nic.set_vf_count(1)
        dropped, later = tx_dropped()
        assert dropped == 0
        assert later != epoch
