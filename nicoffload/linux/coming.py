"""What commands call that which is not there yet: variables of the shell, each after a command that finds its value."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nicoffload.kernel.devlink import Handle
from nicoffload.kernel.representors import NetdevIdentity, Role

COMING = 1 << 30
"""Numbers from here on are of network devices that are not there yet: the kernel counts up from 1."""
_VARIABLE = re.compile(r"\$((REP|PORT)_VF(\d+))")


def coming_representor(vf: int) -> NetdevIdentity:
    """Return what stands for the representor of a VF that is not there yet."""
    return NetdevIdentity(ifindex=COMING + vf, ifname=f"$REP_VF{vf}", role=Role.VF_REPRESENTOR)


def coming_port(vf: int) -> str:
    """Return what stands for the devlink port of a VF that is not there yet."""
    return f"$PORT_VF{vf}"


class Explainer:
    """Puts before commands what finds the values of their variables, each once.

    Args:
        handle: The NIC in devlink.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._told: set[str] = set()

    def forget(self) -> None:
        """Begin anew: the commands from here on are run by themselves."""
        self._told.clear()

    def explained(self, commands: Sequence[str]) -> list[str]:
        """Return commands that can be run one after the other."""
        found: list[str] = []
        for command in commands:
            for name, kind, vf in _VARIABLE.findall(command):
                if name not in self._told:
                    self._told.add(name)
                    found.append(self._finds(name, kind, int(vf)))
            found.append(command)
        return found

    def _finds(self, name: str, kind: str, vf: int) -> str:
        # A line of devlink: pci/0000:03:00.0/1: type eth netdev eth3 flavour pcivf controller 0 pfnum 0 vfnum 0 ...
        place = rf"\({self._handle}/[0-9]*\):" if kind == "PORT" else f"{self._handle}/"
        netdev = "" if kind == "PORT" else r" netdev \([^ ]*\)"
        return f"{name}=$(devlink port show | sed -n 's|^{place}.*{netdev} .*vfnum {vf} .*|\\1|p')"
