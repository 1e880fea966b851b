"""Whose a filter is: by cookie and handle together, since Open vSwitch's filters have cookies of 16 bytes as well."""

from __future__ import annotations

import errno
import struct
import uuid
from collections.abc import Iterable

import numpy as np
import pytest

from nicoffload.errors import ConflictError, InvalidRequestError
from nicoffload.kernel.tc import OUR_HANDLES, FilterRef, Gact, Hook, TcFilter, TcFilters, Verdict, our_handle
from nicoffload.kernel.tc.columns import columns
from nicoffload.kernel.tc.read import states
from nicoffload.model import Match
from tests.kernel.scripted import ScriptedKernel, acknowledge, error

DROP = (Gact(verdict=Verdict.DROP),)


def item(rule_id: uuid.UUID | None = None, handle: int = 0) -> TcFilter:
    return TcFilter(match=Match.of(ipv4_dst=1), actions=DROP, pref=1, handle=handle, rule_id=rule_id)


class Handles:
    """A kernel that takes each handle once, but for some."""

    def __init__(self, taken: Iterable[int] = ()) -> None:
        self.taken = set(taken)
        self.asked: list[int] = []

    def __call__(self, data: bytes) -> list[bytes]:
        out, start = [], 0
        while start < len(data):
            length, _, _, sequence, _ = struct.unpack_from("=IHHII", data, start)
            [handle] = struct.unpack_from("=I", data, start + 24)
            self.asked.append(handle)
            if handle in self.taken:
                out.append(error(errno.EEXIST, sequence, "Filter already exists"))
            self.taken.add(handle)
            start += length + 3 & ~3
        return out + acknowledge(data)


@pytest.mark.parametrize("handle", [1, 0x7FFF_FFFF])
def test_a_rule_of_ours_never_has_a_handle_that_the_kernel_gives_out(handle):
    rule_id = uuid.uuid4()
    with TcFilters(ScriptedKernel(acknowledge), Hook.ingress(1)) as filters:
        [refused] = filters.add_many([item(rule_id, handle)])
        assert isinstance(refused, InvalidRequestError)
        assert refused.path == "/handle"
        handles = np.array([OUR_HANDLES, handle], np.uint32)
        with pytest.raises(InvalidRequestError, match="from 0x80000000"):
            filters.add_columns(item(rule_id, OUR_HANDLES), {}, handles)
        assert filters.add_columns(item(None, OUR_HANDLES), {}, handles) == {}


def test_a_rule_without_a_handle_gets_one_of_ours_and_another_where_that_is_taken():
    rule_id, other = uuid.uuid4(), uuid.uuid4()
    kernel = Handles(taken={our_handle(rule_id), our_handle(rule_id, 1)})
    with TcFilters(ScriptedKernel(kernel), Hook.ingress(1)) as filters:
        made = filters.add_many([item(rule_id), item(other)])
    assert [one.handle for one in made] == [our_handle(rule_id, 2), our_handle(other)]
    assert all(isinstance(one, FilterRef) and one.handle >= OUR_HANDLES for one in made)
    assert len({our_handle(rule_id, attempt) for attempt in range(100)}) == 100


def test_a_rule_that_stands_already_is_a_conflict_after_some_attempts():
    rule_id = uuid.uuid4()
    kernel = Handles(taken={our_handle(rule_id, attempt) for attempt in range(50)})
    with TcFilters(ScriptedKernel(kernel), Hook.ingress(1)) as filters:
        [refused] = filters.add_many([item(rule_id)])
        assert isinstance(refused, ConflictError)
        assert len(kernel.asked) < 10
        [named] = filters.add_many([item(rule_id, our_handle(rule_id))])
        assert isinstance(named, ConflictError)
        assert len(kernel.asked) < 11


@pytest.mark.parametrize(("handle", "ours"), [(5, False), (0x7FFF_FFFF, False), (OUR_HANDLES, True)])
def test_a_cookie_counts_as_a_rule_id_only_with_a_handle_of_ours(handle, ours):
    rule_id = uuid.uuid4()
    kernel = ScriptedKernel(acknowledge)
    with TcFilters(kernel, Hook.ingress(1)) as filters:
        filters.add_many([item(rule_id, OUR_HANDLES)])
    [written] = kernel.channel.sent
    # As the kernel would show it, with the handle of somebody else.
    shown = bytearray(written)
    struct.pack_into("=I", shown, 24, handle)
    struct.pack_into("=H", shown, 4, 44)
    [state] = states([bytes(shown)])
    found = columns([bytes(shown)])
    assert (state.filter.rule_id, found.rule_id(0)) == ((rule_id, rule_id) if ours else (None, None))
    assert found.ours.tolist() == [ours]
    assert bool(found.cookies.any()) is ours
