"""Requests, batches and dumps against answers that a real kernel gives seldom."""

from __future__ import annotations

import contextlib
import resource
import struct

import pytest

from nicoffload.errors import DeviceBusyError, KernelError, NotSupportedError, ResourceExhaustedError
from nicoffload.kernel import Netlink
from nicoffload.kernel.attributes import MalformedError
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.netlink import NLM_F_ACK, encode
from tests.kernel.scripted import ScriptedKernel, acknowledge, error, message


def sequence_of(data: bytes) -> int:
    return struct.unpack_from("=I", data, 8)[0]


def opened(answer) -> Netlink:
    return Netlink(ScriptedKernel(answer), 0, device="eth0")


def done(sequence: int, errno: int = 0, flags: int = 0) -> bytes:
    return message(3, flags, sequence, struct.pack("=i", -errno))


def test_an_acknowledgement_is_no_refusal():
    assert opened(acknowledge).request(44, 0, b"") == (None, [])


def test_a_refusal_has_the_kernels_words_and_becomes_an_error():
    refused, _ = opened(lambda data: [error(95, sequence_of(data), "not on this NIC")]).request(44, 0, b"")
    raised = refused.error("adding", capability="flow_filters", device="eth0")
    assert isinstance(raised, NotSupportedError)
    assert raised.reasons[0].message == "not on this NIC"
    assert raised.device == "eth0"


def test_every_refusal_of_a_batch_ends_at_its_own_message():
    netlink = opened(lambda _: [error(28, 2, "full") + error(17, 3), error(0, 4)])
    first = netlink.reserve(4)
    data = b"".join(encode(44, NLM_F_ACK if n == 4 else 0, n, b"") for n in range(first, 5))
    answer = netlink.batch(data, 4)
    assert {number: one.errno for number, one in answer.refusals.items()} == {2: 28, 3: 17}
    assert isinstance(answer.refusals[2].error("x", capability="y"), ResourceExhaustedError)


def test_an_answer_that_does_not_come_is_an_error_with_a_cure():
    with pytest.raises(KernelError, match="lost") as caught:
        opened(lambda _: []).request(44, 0, b"")
    assert caught.value.hint


def test_an_interrupted_dump_is_begun_anew_and_nothing_is_twice():
    turns = iter([0x10, 0])

    def answer(data: bytes) -> list[bytes]:
        number, flags = sequence_of(data), next(turns)
        return [message(44, flags, number, b"one!"), done(number)]

    found = opened(answer).dump(46, b"", capability="flow_filters")
    assert len(found) == 2
    assert found[0].endswith(b"one!")


def test_a_dump_that_is_always_interrupted_ends():
    netlink = opened(lambda data: [done(sequence_of(data), flags=0x10)])
    with pytest.raises(DeviceBusyError, match="interrupted"):
        netlink.dump(46, b"", capability="flow_filters")


def test_what_is_left_of_an_earlier_dump_is_passed_over():
    netlink = opened(lambda data: [message(44, 0, 999, b"old!"), done(sequence_of(data))])
    assert len(netlink.dump(46, b"", capability="flow_filters")) == 1


def test_a_dump_that_fails_at_its_end_is_an_error():
    netlink = opened(lambda data: [done(sequence_of(data), errno=95)])
    with pytest.raises(NotSupportedError):
        netlink.dump(46, b"", capability="flow_filters")


@pytest.mark.parametrize(
    "junk", [struct.pack("=IHHII", 8, 2, 0, 1, 0), struct.pack("=IHHII", 99, 2, 0, 1, 0)]
)
def test_a_length_that_lies_is_malformed(junk):
    with pytest.raises(MalformedError):
        opened(lambda _: [junk]).request(44, 0, b"")
    with pytest.raises(MalformedError):
        opened(lambda _: [junk]).dump(46, b"", capability="flow_filters")


def test_what_is_left_of_an_earlier_request_is_no_answer():
    left = error(17, 7) + message(44, 0, 7, b"old!")
    netlink = opened(lambda data: [left, message(44, 0, sequence_of(data), b"new!"), *acknowledge(data)])
    refused, replies = netlink.request(44, 0, b"")
    assert refused is None
    assert [bytes(reply.payload) for reply in replies] == [b"new!"]


def test_a_warning_of_success_is_kept():
    netlink = opened(lambda data: [error(0, sequence_of(data), "not in hardware")])
    number = netlink.reserve(1)
    answer = netlink.batch(encode(44, NLM_F_ACK, number, b""), number)
    assert (answer.refusals, answer.warnings) == ({}, {number: "not in hardware"})


def test_more_descriptors_than_select_takes_do_no_harm():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip(f"this process may not have 1200 open files, only {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1030):
                stack.enter_context(open("/dev/null", "rb"))  # noqa: PTH123  (a thousand of them)
            with Netlink(LinuxKernel(), 0) as netlink:
                assert netlink.dump(18, bytes(16), capability="link")
                with pytest.raises(TimeoutError):
                    netlink._channel.receive(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
