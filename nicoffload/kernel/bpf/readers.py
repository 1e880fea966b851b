"""Waits until programs are through with what they had begun to read: a grace period of RCU."""

from __future__ import annotations

import errno
import struct

from nicoffload.errors import NicOffloadError, NotSupportedError, Reason, errno_name
from nicoffload.kernel.bpf.elf import MapShape
from nicoffload.kernel.bpf.maps import create_map
from nicoffload.kernel.seam import Kernel

_ARRAY, _ARRAY_OF_MAPS = 2, 12
_CAPABILITY = "bpf"


def await_readers(kernel: Kernel) -> None:
    """Wait until no packet is on its way that entered a program before this call.

    Where membarrier(2) is refused, as with EINVAL on hosts with ``nohz_full``, a map of maps is written: Linux waits
    for a grace period before it answers (kernel/bpf/syscall.c: maybe_wait_bpf_programs).

    Raises:
        NotSupportedError: Both ways are refused.
    """
    try:
        kernel.await_readers()
    except OSError as cause:
        try:
            _write_map_of_maps(kernel)
        except NicOffloadError as second:
            number = cause.errno or errno.EIO
            reason = Reason(
                code="rcu.wait",
                path="",
                message=f"membarrier(2) answers {errno_name(number)}, and for a map of maps: {second}",
                errno=errno_name(number),
            )
            raise NotSupportedError(
                "nothing tells here when packets are through with what is to be written anew",
                capability=_CAPABILITY,
                reasons=[reason],
            ) from cause


def _write_map_of_maps(kernel: Kernel) -> None:
    shape = MapShape(kind=_ARRAY, key_bytes=4, value_bytes=4, max_entries=1, flags=0)
    with create_map(kernel, "waited_in", shape) as inner:
        outer = MapShape(kind=_ARRAY_OF_MAPS, key_bytes=4, value_bytes=4, max_entries=1, flags=0)
        with create_map(kernel, "waited_for", outer, like=inner) as waiting:
            waiting.update(bytes(4), struct.pack("=I", inner.descriptor))
