"""Runs the real ethtool and stands between it and the kernel: what it asks is recorded, and a test answers."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_TRACEME, _SYSCALL, _GETREGS, _SETREGS, _SETOPTIONS = 0, 24, 12, 13, 0x4200
_GOOD_STOPS, _KILL_WITH_TRACER = 1, 0x100000
_IOCTL, _SIOCETHTOOL = 16, 0x8946
_REGISTERS = 27
_RAX, _RDX, _RSI, _ORIG_RAX = 10, 12, 13, 15
RULE_BYTES = 192
_LIST = 0x30

missing = next(
    (
        reason
        for reason, absent in (
            ("needs ethtool (Debian: apt install ethtool)", shutil.which("ethtool") is None),
            ("traces system calls of x86-64", platform.machine() != "x86_64"),
        )
        if absent
    ),
    "",
)
"""Why it can't be done here; empty where it can."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, data: object = None) -> None:
    if _libc.ptrace(request, pid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def spy(words: Sequence[str], answer: Callable[[bytes], bytes]) -> str:
    """Run ethtool, answer each SIOCETHTOOL in the kernel's place, and return what it prints.

    Args:
        words: The whole command.
        answer: Called with the structure that ethtool passes; returns it as the kernel would leave it, or raises
            OSError.
    """
    child = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: _ptrace(_TRACEME, 0),  # noqa: PLW1509  (one system call, no lock)
    )
    os.waitpid(child.pid, 0)
    _ptrace(_SETOPTIONS, child.pid, _GOOD_STOPS | _KILL_WITH_TRACER)
    registers = (ctypes.c_ulonglong * _REGISTERS)()
    entering, pending = True, None
    with Path(f"/proc/{child.pid}/mem").open("r+b", buffering=0) as memory:
        while True:
            _ptrace(_SYSCALL, child.pid)
            _, status = os.waitpid(child.pid, 0)
            if os.WIFEXITED(status):
                child.returncode = os.WEXITSTATUS(status)
                break
            if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
                continue
            _ptrace(_GETREGS, child.pid, registers)
            if entering and registers[_ORIG_RAX] == _IOCTL and registers[_RSI] == _SIOCETHTOOL:
                memory.seek(registers[_RDX] + 16)
                pending = struct.unpack("=Q", memory.read(8))[0]
                asked = _read(memory, pending)
                registers[_ORIG_RAX] = 0xFFFF_FFFF_FFFF_FFFF  # the kernel does nothing
                _ptrace(_SETREGS, child.pid, registers)
            elif not entering and pending is not None:
                registers[_RAX] = _told(memory, pending, asked, answer)
                _ptrace(_SETREGS, child.pid, registers)
                pending = None
            entering = not entering
    assert child.stdout is not None
    with child.stdout:
        said = child.stdout.read()
    assert child.returncode == 0, f"{' '.join(words)}: {said}"
    return said


def _read(memory, address: int) -> bytes:
    memory.seek(address)
    data: bytes = memory.read(RULE_BYTES)
    if struct.unpack_from("=I", data)[0] == _LIST:
        memory.seek(address)
        count = struct.unpack_from("=I", data, RULE_BYTES - 8)[0]
        return memory.read(RULE_BYTES + 4 * count)
    return data


def _told(memory, address: int, asked: bytes, answer: Callable[[bytes], bytes]) -> int:
    try:
        data = answer(asked)
    except OSError as refused:
        return (1 << 64) - refused.errno
    memory.seek(address)
    memory.write(data)
    return 0
