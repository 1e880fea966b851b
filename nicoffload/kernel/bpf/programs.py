"""eBPF programs: loaded, and found again by the number that tc tells, with the maps that they use."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

from nicoffload.errors import AccessDeniedError, KernelError, NotSupportedError, Reason, from_errno
from nicoffload.kernel.attributes import string
from nicoffload.kernel.bpf.elf import MapShape
from nicoffload.kernel.bpf.maps import BpfMap, create_map
from nicoffload.kernel.seam import Kernel

_LOAD, _PROGRAM_BY_ID, _MAP_BY_ID, _INFO, _BIND_MAP = 5, 13, 14, 15, 35
_SCHED_CLS = 3
_LOAD_FORM = struct.Struct("=IIQQIIQII16s")
_LOAD_BYTES = 128
_LOG_BYTES = 1 << 22
_LOG_TAIL = 600
_INFO_FORM = struct.Struct("=IIQ")
_PROGRAM_INFO_BYTES = 104
_MAP_COUNT_AT, _MAP_IDS_AT = 52, 56
_MAP_INFO_BYTES = 88
_MAP_INFO = struct.Struct("=IIIIII16s")
_MAX_MAPS = 64
_CAPABILITY = "bpf"
_ARRAY = 2


def require_bpf(kernel: Kernel) -> None:
    """Find out whether this process can use eBPF.

    Raises:
        AccessDeniedError: It may not.
        NotSupportedError: The kernel has none.
        KernelError: ENOMEM: it has no memory.
    """
    try:
        create_map(
            kernel, "probe", MapShape(kind=_ARRAY, key_bytes=4, value_bytes=8, max_entries=1, flags=0)
        ).close()
    except AccessDeniedError:
        raise
    except (KernelError, NotSupportedError) as cause:
        if cause.errno == errno.ENOMEM:
            raise
        reason = Reason(
            code="bpf.missing",
            path="",
            message="the kernel has no bpf(2) (CONFIG_BPF_SYSCALL)",
            errno="ENOSYS",
        )
        raise NotSupportedError("eBPF is not to be had", capability=_CAPABILITY, reasons=[reason]) from cause


def load_program(kernel: Kernel, name: str, instructions: bytes, licence: str) -> int:
    """Load a program for tc and return its descriptor; the caller closes it.

    Args:
        kernel: Where.
        name: At most 15 letters, digits, underscores.
        instructions: With the descriptors of its maps filled in.
        licence: Such as ``Dual BSD/GPL``; helpers of the kernel can depend on it.

    Raises:
        KernelError: The verifier refuses; its last words are in the error.
        NicOffloadError: The kernel refuses for another reason.
    """
    code, text, log = bytearray(instructions), bytearray(licence.encode() + b"\0"), bytearray(_LOG_BYTES)
    form = [_SCHED_CLS, len(code) // 8, _address(code), _address(text)]
    named = name.encode()[:15]
    try:
        return kernel.bpf(_LOAD, _padded(_LOAD_FORM.pack(*form, 0, 0, 0, 0, 0, named)))
    except OSError as first:
        if first.errno not in {errno.EINVAL, errno.EACCES, errno.E2BIG}:
            raise from_errno(
                first.errno or errno.EIO, f"loading program {name}", capability=_CAPABILITY
            ) from first
    try:  # once more, with the verifier's words
        return kernel.bpf(_LOAD, _padded(_LOAD_FORM.pack(*form, 1, len(log), _address(log), 0, 0, named)))
    except OSError as cause:
        words = bytes(log).split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        raise KernelError(
            f"the kernel's verifier refuses program {name}: {words[-_LOG_TAIL:]}", errno=cause.errno
        ) from cause


def bind_map(kernel: Kernel, program: int, bpf_map: BpfMap) -> None:
    """Keep a map for as long as a program lives, although the program does not use it.

    Raises:
        NicOffloadError: The kernel refuses; it knows this since Linux 5.10.
    """
    try:
        kernel.bpf(_BIND_MAP, bytearray(struct.pack("=III", program, bpf_map.descriptor, 0)))
    except OSError as cause:
        if cause.errno != errno.EEXIST:  # it uses it
            raise from_errno(
                cause.errno or errno.EIO, f"binding map {bpf_map.name}", capability=_CAPABILITY
            ) from cause


def open_program(kernel: Kernel, program_id: int) -> int:
    """Return a descriptor of a loaded program; the caller closes it.

    Args:
        kernel: Where.
        program_id: As tc tells it of a filter.

    Raises:
        NotFoundError: There is no such program.
        NicOffloadError: The kernel refuses.
    """
    try:
        return kernel.bpf(_PROGRAM_BY_ID, bytearray(struct.pack("=III", program_id, 0, 0)))
    except OSError as cause:
        raise from_errno(
            cause.errno or errno.EIO, f"opening program {program_id}", capability=_CAPABILITY
        ) from cause


def maps_of_program(kernel: Kernel, program_id: int) -> Mapping[str, BpfMap]:
    """Return the maps of a loaded program by name; the caller closes each.

    Args:
        kernel: Where.
        program_id: As tc tells it of a filter.

    Raises:
        NotFoundError: There is no such program.
        NicOffloadError: The kernel refuses.
    """
    program = open_program(kernel, program_id)
    try:
        numbers = _map_ids(kernel, program)
    finally:
        os.close(program)
    found: dict[str, BpfMap] = {}
    try:
        for number in numbers:
            opened = _map_by_id(kernel, number)
            found[opened.name] = opened
    except BaseException:
        for opened in found.values():
            opened.close()
        raise
    return found


def _map_ids(kernel: Kernel, program: int) -> tuple[int, ...]:
    numbers = (ctypes.c_uint32 * _MAX_MAPS)()
    info = bytearray(_PROGRAM_INFO_BYTES)
    struct.pack_into("=IQ", info, _MAP_COUNT_AT, _MAX_MAPS, ctypes.addressof(numbers))
    _read_info(kernel, program, info)
    count = struct.unpack_from("=I", info, _MAP_COUNT_AT)[0]
    return tuple(numbers[: min(count, _MAX_MAPS)])


def _map_by_id(kernel: Kernel, number: int) -> BpfMap:
    try:
        descriptor = kernel.bpf(_MAP_BY_ID, bytearray(struct.pack("=III", number, 0, 0)))
    except OSError as cause:
        raise from_errno(cause.errno or errno.EIO, f"opening map {number}", capability=_CAPABILITY) from cause
    info = bytearray(_MAP_INFO_BYTES)
    try:
        _read_info(kernel, descriptor, info)
    except BaseException:
        os.close(descriptor)
        raise
    kind, _, key_bytes, value_bytes, entries, flags, name = _MAP_INFO.unpack_from(info)
    shape = MapShape(
        kind=kind, key_bytes=key_bytes, value_bytes=value_bytes, max_entries=entries, flags=flags
    )
    return BpfMap(kernel, shape, descriptor, string(name))


def _read_info(kernel: Kernel, descriptor: int, info: bytearray) -> None:
    try:
        kernel.bpf(_INFO, bytearray(_INFO_FORM.pack(descriptor, len(info), _address(info))))
    except OSError as cause:
        raise from_errno(
            cause.errno or errno.EIO, "asking about a program", capability=_CAPABILITY
        ) from cause


def _padded(attributes: bytes) -> bytearray:
    return bytearray(attributes.ljust(_LOAD_BYTES, b"\0"))


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
