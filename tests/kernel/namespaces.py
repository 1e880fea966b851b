"""What becomes of a NIC's network device in another network namespace: a scenario as those of `scenarios`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from nicoffload.kernel.attributes import u32
from nicoffload.kernel.devlink import Devlink
from nicoffload.kernel.features import FeatureName
from nicoffload.kernel.link import read_link, set_up
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc import Gact, Hook, TcFilter, TcFilters, Verdict, qdisc
from nicoffload.kernel.tc.qdisc import IngressQdisc
from nicoffload.kernel.veth import find_link, links
from nicoffload.model import Match
from nicoffload.testing import FakeKernel
from tests.kernel.scenarios import Subject, Transcript, feature, ports

NAME, PATH = "nicoffload-scenario", "/run/netns/nicoffload-scenario"
_SETLINK, _NETNS_FD = 19, 28


def simulated_namespaces(subject: Subject, log: Transcript) -> None:
    """A device goes into a namespace, is used there, and comes home when the namespace goes."""
    kernel, ifname, index = subject.kernel, subject.ifname, subject.ifindex()
    log.do("remove none", lambda: kernel.remove_namespace(NAME))
    log.do("enter none", lambda: inside(kernel))
    log.do("make", lambda: kernel.add_namespace(NAME))
    log.do("make again", lambda: kernel.add_namespace(NAME))
    log.do("named", lambda: NAME in kernel.namespaces())
    with route(kernel) as netlink:
        qdisc.add(netlink, IngressQdisc(ifindex=index))
    set_up(kernel, index)
    log.do("move", lambda: move(kernel, index, PATH))
    log.do("link from outside", lambda: read_link(kernel, index).up)
    log.do("feature from outside", lambda: feature(kernel, ifname, FeatureName.HW_TC_OFFLOAD))
    log.do("move from outside", lambda: move(kernel, index, PATH))
    log.do("sysfs", lambda: sysfs(kernel, subject, ifname))
    with Devlink(kernel) as devlink, route(kernel) as outside:
        log.do("ports", lambda: ports(devlink, subject))
        with kernel.namespace(PATH) as there:
            used_inside(there, subject, log, ifname, index)
            log.do("an older socket", lambda: find_link(outside, index))
            log.do("an older socket of devlink", lambda: ports(devlink, subject))
    log.do("remove", lambda: kernel.remove_namespace(NAME))
    await_home(kernel, index)
    log.do("home", lambda: (subject.ifname == ifname, read_link(kernel, index).up))
    with route(kernel) as netlink:
        log.do("no qdisc at home", lambda: qdisc.find(netlink, index))
    with Devlink(kernel) as devlink:
        log.do("ports at home", lambda: ports(devlink, subject))


def used_inside(there: Kernel, subject: Subject, log: Transcript, ifname: str, index: int) -> None:
    """Do to a device what can be done to it where it is now."""
    item = TcFilter(
        match=Match.of(eth_type=0x0800), actions=(Gact(verdict=Verdict.DROP),), pref=1, handle=1 << 31
    )
    with route(there) as netlink:
        log.do(
            "devices inside",
            lambda: sorted("it" if one.ifname == ifname else one.ifname for one in physical(netlink)),
        )
        log.do("sysfs inside", lambda: sysfs(there, subject, ifname))
        log.do("link inside", lambda: read_link(there, index).up)
        log.do("feature inside", lambda: feature(there, ifname, FeatureName.HW_TC_OFFLOAD))
        log.do("no qdisc inside", lambda: qdisc.find(netlink, index))
        log.do("up inside", lambda: set_up(there, index))
        log.do("link inside now", lambda: read_link(there, index).up)
        log.do("qdisc inside", lambda: qdisc.add(netlink, IngressQdisc(ifindex=index)))
        log.do("move lo", lambda: move(there, 1, "/proc/thread-self/ns/net"))
    with TcFilters(there, Hook.ingress(index)) as filters:
        log.do("filter inside", lambda: len(filters.add_many([item])) == len(filters.dump()))
    with Devlink(there) as devlink:
        log.do("ports inside", lambda: ports(devlink, subject))
        log.do("switch inside", lambda: devlink.eswitch(subject.handle))


def sysfs(kernel: Kernel, subject: Subject, ifname: str) -> tuple[bool, bool]:
    """Tell whether sysfs shows the device, below its NIC and among all."""
    return ifname in kernel.list_sysfs(f"{subject.folder}/net"), ifname in kernel.list_sysfs("class/net")


def physical(netlink: Netlink) -> list:
    """Return the devices of a namespace, without those that modules of some kernels put into each."""
    return [one for one in links(netlink) if one.ifname == "lo" or one.ifname.startswith(("eth", "en"))]


@contextlib.contextmanager
def route(kernel: Kernel) -> Iterator[Netlink]:
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        yield netlink


def inside(kernel: Kernel) -> None:
    with kernel.namespace(PATH):
        pass


def move(kernel: Kernel, index: int, path: str) -> None:
    """Move a device, as `ip link set X netns N` does; the SDK itself moves none."""
    with route(kernel) as netlink:
        found = find_link(netlink, index)
        if isinstance(kernel, FakeKernel):
            if found is None:
                raise OSError(19, "No such device")
            kernel.move(kernel.world.netdevs[index], path)
            return
        target = os.open(path, os.O_RDONLY)
        try:
            payload = bytes(4) + index.to_bytes(4, "little") + bytes(8) + u32(_NETNS_FD, target)
            refused, _ = netlink.request(_SETLINK, 0, payload)
        finally:
            os.close(target)
        if refused:
            raise OSError(refused.errno, os.strerror(refused.errno))


def await_home(kernel: Kernel, index: int) -> None:
    """Wait until a device is back: the kernel takes namespaces apart in a thread of its own."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        with route(kernel) as netlink:
            if find_link(netlink, index) is not None:
                return
    raise TimeoutError("the device does not come home")
