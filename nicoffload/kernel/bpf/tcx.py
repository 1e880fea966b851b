"""TCX: programs on a device's ingress without a qdisc in between, cheaper for each packet than a filter of tc."""

from __future__ import annotations

import errno
import struct

from nicoffload.errors import from_errno
from nicoffload.kernel.seam import Kernel

_ATTACH = 8
_TCX_INGRESS = 46
_ATTRIBUTES = struct.Struct("=IIII")
_ATTRIBUTES_BYTES = 64
_CAPABILITY = "bpf"


def attach_ingress(kernel: Kernel, ifindex: int, program: int) -> bool:
    """Put a program before all that tc has on a device's ingress, for as long as the device lives. Repeatable.

    Args:
        kernel: In the namespace that the device is in.
        ifindex: Of the device.
        program: Its descriptor; loaded for tc.

    Returns:
        False where the kernel has no TCX: it came with Linux 6.6, and with CONFIG_NET_XGRESS.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    try:
        kernel.bpf(
            _ATTACH,
            bytearray(_ATTRIBUTES.pack(ifindex, program, _TCX_INGRESS, 0).ljust(_ATTRIBUTES_BYTES, b"\0")),
        )
    except OSError as cause:
        if cause.errno == errno.EINVAL:
            return False
        if cause.errno != errno.EEXIST:
            raise from_errno(
                cause.errno or errno.EIO, f"attaching a program to device {ifindex}", capability=_CAPABILITY
            ) from cause
    return True
