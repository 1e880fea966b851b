"""Filters whose answer is lost: what stands is read, and only where that fails too the outcome is uncertain."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import uuid

import numpy as np
import pytest

from nicoffload.errors import ConflictError, InvalidRequestError, KernelError
from nicoffload.kernel import Netlink
from nicoffload.kernel.netlink import HEADER, NLMSG_ERROR
from nicoffload.kernel.seam import NETLINK_ROUTE, NetlinkChannel
from nicoffload.kernel.tc import FilterRef, Gact, Hook, TcFilter, TcFilters, U32Filters, Verdict, qdisc
from nicoffload.kernel.tc.template import RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER
from nicoffload.model import Match
from tests.kernel.exchanges import fake
from tests.kernel.random_filters import random_u32

HANDLE = 0x8000_0001


class LosingChannel(NetlinkChannel):
    """A channel that loses the answers to some kinds of messages, as a full receive buffer does.

    Args:
        channel: The channel.
        kinds: Message type to how many of its answers are lost.
        echo_only: Lose only what is sent back, and leave the acknowledgement.
    """

    def __init__(self, channel: NetlinkChannel, kinds: dict[int, int], *, echo_only: bool) -> None:
        self._channel, self._kinds, self._echo_only = channel, kinds, echo_only
        self._full = False

    def send(self, data):
        kind = HEADER.unpack_from(data)[1]
        self._channel.send(data)
        if self._kinds.get(kind, 0):
            self._kinds[kind] -= 1
            self._full = True

    def receive(self, timeout_s=None):
        if self._full and not self._echo_only:
            self._full = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        found = self._channel.receive(timeout_s)
        while self._full and HEADER.unpack_from(found)[1] != NLMSG_ERROR:
            found = self._channel.receive(timeout_s)
        self._full = False
        return found

    def join(self, group):
        self._channel.join(group)

    def fileno(self):
        return self._channel.fileno()

    def close(self):
        self._channel.close()


@pytest.fixture
def prepared(monkeypatch):
    """Return what makes filters on an ordinary device whose answers get lost, and the same seen without losses."""
    with contextlib.ExitStack() as stack:

        def make(kinds: dict[int, int], *, of=TcFilters, echo_only=False):
            kernel, roles = fake.plain("a")
            ifindex = roles["a"]
            with Netlink(kernel, NETLINK_ROUTE) as netlink:
                qdisc.ensure(netlink, ifindex)
            sound = stack.enter_context(of(kernel, Hook.ingress(ifindex), device="a"))
            real = kernel.open_netlink
            monkeypatch.setattr(
                kernel, "open_netlink", lambda family: LosingChannel(real(family), kinds, echo_only=echo_only)
            )
            return stack.enter_context(of(kernel, Hook.ingress(ifindex), device="a")), sound

        yield make


def rule(number: int, **changes) -> TcFilter:
    made = TcFilter(
        match=Match.of(eth_type=0x0800, ipv4_dst=0x0A00_0000 + number),
        actions=(Gact(verdict=Verdict.DROP),),
        pref=1,
        handle=HANDLE + number,
        rule_id=uuid.UUID(int=1 + number),
    )
    return dataclasses.replace(made, **changes)


def test_filters_that_stand_although_the_answer_is_lost_are_installed(prepared):
    filters, sound = prepared({RTM_NEWTFILTER: 1})
    items = [rule(number) for number in range(3)]
    outcomes = filters.add_many(items)
    assert [one.handle for one in outcomes] == [item.handle for item in items]
    assert len(sound.dump()) == 3


def test_columns_that_stand_although_the_answer_is_lost_are_installed(prepared):
    filters, sound = prepared({RTM_NEWTFILTER: 1})
    cookies = np.frombuffer(b"".join(uuid.UUID(int=1 + n).bytes for n in range(100)), np.uint8)
    errors = filters.add_columns(
        rule(0),
        {"ipv4_dst": np.arange(100, dtype=np.uint32)},
        np.arange(HANDLE, HANDLE + 100, dtype=np.uint32),
        cookies=cookies.reshape(-1, 16),
    )
    assert errors == {}
    assert len(sound.dump()) == 100


def test_a_filter_that_was_refused_beside_others_does_not_count_as_installed(prepared):
    filters, sound = prepared({RTM_NEWTFILTER: 1})
    sound.add(rule(7))
    taken = rule(1, handle=rule(7).handle)
    twice = rule(2, match=rule(7).match)
    fine, conflict, absent = filters.add_many([rule(0), taken, twice])
    assert isinstance(fine, FilterRef)
    assert isinstance(conflict, ConflictError)
    assert conflict.existing == str(rule(7).rule_id)
    assert isinstance(absent, KernelError)
    assert not absent.uncertain
    assert "does not stand" in absent.message


def test_of_a_replacement_it_is_read_whether_the_old_or_the_new_stands(prepared):
    filters, sound = prepared({RTM_NEWTFILTER: 1})
    sound.add(rule(0))
    new = rule(0, actions=(Gact(verdict=Verdict.PASS),))
    assert isinstance(filters.add_many([new], replace=True)[0], FilterRef)
    assert sound.dump()[0].filter.actions == new.actions


def test_where_looking_fails_too_the_outcome_is_uncertain(prepared):
    filters, sound = prepared({RTM_NEWTFILTER: 1, RTM_GETTFILTER: 2})
    outcomes = filters.add_many([rule(0), rule(1)])
    assert [one.uncertain for one in outcomes] == [True, True]
    assert [one.errno for one in outcomes] == [errno.ENOBUFS] * 2
    assert len(sound.dump()) == 2


def test_one_more_loss_does_not_keep_it_from_looking(prepared):
    filters, _ = prepared({RTM_NEWTFILTER: 1, RTM_GETTFILTER: 1})
    assert isinstance(filters.add_many([rule(0)])[0], FilterRef)


def test_removed_is_what_no_longer_stands_although_the_answer_is_lost(prepared):
    filters, sound = prepared({RTM_DELTFILTER: 1})
    refs = sound.add_many([rule(0), rule(1)])
    assert filters.delete_many(refs) == [None, None]
    assert sound.dump() == []


def test_a_filter_is_found_again_although_the_answer_is_lost(prepared):
    filters, sound = prepared({RTM_GETTFILTER: 1})
    refs = sound.add_many([rule(0), rule(1)])
    assert [one.filter.rule_id for one in filters.get_many(refs)] == [rule(0).rule_id, rule(1).rule_id]


@pytest.mark.parametrize("echo_only", [False, True])
def test_a_handle_that_the_kernel_chose_and_did_not_tell_is_looked_up(prepared, echo_only):
    filters, sound = prepared({RTM_NEWTFILTER: 1}, echo_only=echo_only)
    bare = rule(0, handle=0, rule_id=None)
    outcome = filters.add(bare)
    assert outcome.handle == sound.dump()[0].ref.handle != 0


@pytest.mark.parametrize("echo_only", [False, True])
def test_a_u32_handle_that_the_kernel_did_not_tell_is_looked_up_by_the_rule_id(prepared, echo_only):
    filters, sound = prepared({RTM_NEWTFILTER: 1}, of=U32Filters, echo_only=echo_only)
    items = [
        dataclasses.replace(item, node=0, pref=1, protocol=0x0800, rule_id=uuid.UUID(int=n + 1))
        for n, item in enumerate(random_u32(3, [filters.hook.ifindex]))
    ]
    outcomes = filters.add_many(items)
    assert sorted(one.handle for one in outcomes) == sorted(state.ref.handle for state in sound.dump())
    assert all(one.handle for one in outcomes)


def test_a_handle_that_was_not_told_and_can_not_be_read_is_no_success(prepared, monkeypatch):
    filters, sound = prepared({})
    sound.add(rule(1, handle=0, rule_id=None, pref=2))
    monkeypatch.setattr("nicoffload.kernel.tc.bulk._handle", lambda _reply: 0)
    monkeypatch.setattr("nicoffload.kernel.tc.lost._unplaced", lambda *_: None)
    (outcome,) = filters.add_many([rule(0, handle=0, rule_id=None)])
    assert isinstance(outcome, KernelError)
    assert outcome.uncertain


@pytest.mark.parametrize(("pref", "handle", "path"), [(1, 0, "/handle"), (0, HANDLE, "/pref")])
@pytest.mark.parametrize(("of", "kind"), [(TcFilters, "flower"), (U32Filters, "u32")])
def test_a_removal_of_a_whole_pref_is_refused(prepared, of, kind, pref, handle, path):
    filters, _ = prepared({}, of=of)
    with TcFilters(filters._netlink._kernel, filters.hook) as others:
        others.add(rule(0))
        ref = FilterRef(pref=pref, handle=handle, chain=0, protocol=0x0800, kind=kind)
        (answer,) = filters.delete_many([ref])
        assert isinstance(answer, InvalidRequestError)
        assert answer.path == path
        assert len(others.dump()) == 1
