"""A program before tc: what the kernel's answers mean."""

from __future__ import annotations

import errno
import struct

import pytest

from nicoffload.errors import AccessDeniedError
from nicoffload.kernel.bpf import attach_ingress


class Answering:
    """A kernel that has one answer to bpf(2)."""

    def __init__(self, number):
        self.number = number
        self.asked = []

    def bpf(self, command, attributes):
        self.asked.append((command, bytes(attributes)))
        if self.number:
            raise OSError(self.number, "no")
        return 0


def test_the_program_goes_to_the_device():
    kernel = Answering(0)
    assert attach_ingress(kernel, 16, 9)
    ((command, sent),) = kernel.asked
    assert command == 8  # BPF_PROG_ATTACH
    assert struct.unpack_from("=IIII", sent) == (16, 9, 46, 0)  # BPF_TCX_INGRESS
    assert not any(sent[16:])


@pytest.mark.parametrize(("number", "is_there"), [(errno.EINVAL, False), (errno.EEXIST, True)])
def test_a_kernel_without_it_says_so_and_a_second_time_is_no_error(number, is_there):
    assert attach_ingress(Answering(number), 16, 9) is is_there


def test_another_refusal_is_an_error():
    with pytest.raises(AccessDeniedError):
        attach_ingress(Answering(errno.EPERM), 16, 9)
