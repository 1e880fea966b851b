"""Linux interfaces that the plugins compose: everything that leaves the process goes through one seam, as bytes."""

from nicoffload.kernel.netlink import KernelRefusal, Netlink
from nicoffload.kernel.seam import Kernel, NetlinkChannel, OpenFiles, Sighting

__all__ = ["Kernel", "KernelRefusal", "Netlink", "NetlinkChannel", "OpenFiles", "Sighting"]
