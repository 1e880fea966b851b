"""Rate objects of devlink: leaves for VFs, nodes above them (net/devlink/rate.c, and the drivers' operations)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from nicoffload.errors import errno_number
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.fake_kernel.netlink import RejectedError, number_of, text_of
from nicoffload.testing.fake_kernel.world import FakeNic

TX_SHARE, TX_MAX, NODE_NAME, PARENT, TX_PRIORITY, TX_WEIGHT = 166, 167, 168, 169, 177, 178
_BITS = 8
_ATTRIBUTES: tuple[tuple[int, str, str], ...] = (
    (TX_SHARE, "tx_share", "TX share"),
    (TX_MAX, "tx_max", "TX max"),
    (PARENT, "parent", "Parent"),
    (TX_PRIORITY, "tx_priority", "TX priority"),
    (TX_WEIGHT, "tx_weight", "TX weight"),
)
_TEXTS: Mapping[tuple[str, str], str] = {
    ("netdevsim", "not_multiple"): "TX rate value not in link speed units of 1Mbps.",
    ("netdevsim", "range"): "TX rate value exceed link maximum speed 5000Mbps.",
    ("netdevsim", "node_in_legacy"): "Node creation allowed only in switchdev mode.",
    ("mlx5_core", "not_multiple"): "TX rate value not in link speed units of 1Mbps",
    ("mlx5_core", "range"): "TX rate value exceed link maximum speed",
    ("mlx5_core", "node_in_legacy"): "Rate node creation supported only in switchdev mode",
    ("ice", "priority"): "Priority should be less than 8",
    ("ice", "weight"): "Weight must be between 1 and 200",
}
"""Words of drivers, from netdevsim/dev.c, mellanox/mlx5/core/esw/qos.c and intel/ice/devlink/devlink.c."""


@dataclass(slots=True, eq=False)
class RateObject:
    """A leaf or a node.

    Args:
        nic: Whose.
        vf: The leaf's VF; None for a node.
        name: The node's; empty for a leaf.
        tx_share: Bytes per second, as it was asked for.
        tx_max: Likewise.
        tx_priority: Its priority.
        tx_weight: Its weight.
        parent: The node that it is in; None for none.
    """

    nic: FakeNic
    vf: int | None = None
    name: str = ""
    tx_share: int = 0
    tx_max: int = 0
    tx_priority: int = 0
    tx_weight: int = 0
    parent: RateObject | None = None

    @property
    def is_node(self) -> bool:
        """Whether it is a node."""
        return self.vf is None


@dataclass(slots=True)
class RateTree:
    """The rate objects of one NIC.

    Args:
        nic: The NIC.
        leaves: By index of the VF.
        nodes: By name, the newest first as in the kernel's list.
    """

    nic: FakeNic
    leaves: dict[int, RateObject] = field(default_factory=dict)
    nodes: dict[str, RateObject] = field(default_factory=dict)

    def objects(self) -> list[RateObject]:
        """Return all, in the kernel's order."""
        return [*reversed(self.nodes.values()), *self.leaves.values()]

    def node(self, attributes: Mapping[int, bytes]) -> RateObject:
        """Return the node that a request names.

        Raises:
            RejectedError: ENODEV: there is none; EINVAL: it is no name.
        """
        name = _node_name(attributes)
        if name not in self.nodes:
            raise RejectedError(errno.ENODEV)
        return self.nodes[name]

    def create(self, attributes: Mapping[int, bytes]) -> RateObject:
        """Make a node, with what the request says of it; of one that is refused nothing stays.

        Raises:
            RejectedError: As devlink or the driver refuses.
        """
        doc = self.nic.profile.rates.devlink
        if doc is None or not doc.node:
            raise RejectedError(errno.EOPNOTSUPP, "Rate nodes aren't supported")
        self._check_supported(attributes, is_node=True)
        name = _node_name(attributes)
        if name in self.nodes:
            raise RejectedError(errno.EEXIST)
        if doc.node_needs_mode and doc.node_needs_mode != self.nic.device.mode:
            raise self._rejected("node_in_legacy", errno.EOPNOTSUPP)
        made = RateObject(self.nic, name=name)
        self._apply(made, attributes)
        self.nodes[name] = made
        return made

    def delete(self, node: RateObject) -> None:
        """Remove a node.

        Raises:
            RejectedError: EBUSY: something is in it.
        """
        if any(one.parent is node for one in self.objects()):
            raise RejectedError(errno.EBUSY, "Node has children. Cannot delete node.")
        del self.nodes[node.name]

    def set(self, one: RateObject, attributes: Mapping[int, bytes]) -> None:
        """Set rates in the kernel's order; those before one that is refused stay set.

        Raises:
            RejectedError: As devlink or the driver refuses.
        """
        if self.nic.profile.rates.devlink is None:
            raise RejectedError(errno.EOPNOTSUPP)
        self._check_supported(attributes, is_node=one.is_node)
        self._apply(one, attributes)

    def _check_supported(self, attributes: Mapping[int, bytes], *, is_node: bool) -> None:
        doc = self.nic.profile.rates.devlink
        assert doc is not None
        supported = doc.node if is_node else doc.leaf
        for kind, name, words in _ATTRIBUTES:
            if kind in attributes and name not in supported:
                where = "nodes" if is_node else "leafs"
                raise RejectedError(errno.EOPNOTSUPP, f"{words} set isn't supported for the {where}")

    def _apply(self, one: RateObject, attributes: Mapping[int, bytes]) -> None:
        for kind, name in ((TX_SHARE, "min_tx"), (TX_MAX, "max_tx")):
            if kind in attributes:
                asked = number_of(attributes[kind])
                self._check_and_store(one, name, asked)
                if kind == TX_SHARE:
                    one.tx_share = asked
                else:
                    one.tx_max = asked
        doc = self.nic.profile.rates.devlink
        assert doc is not None
        if TX_PRIORITY in attributes:
            one.tx_priority = self._within(attributes[TX_PRIORITY], doc.priority_range, "priority")
        if TX_WEIGHT in attributes:
            one.tx_weight = self._within(attributes[TX_WEIGHT], doc.weight_range, "weight")
        if PARENT in attributes:
            self._set_parent(one, text_of(attributes[PARENT]))

    def _check_and_store(self, one: RateObject, kind: str, bytes_per_s: int) -> None:
        sriov = self.nic.device.sriov
        try:
            if one.vf is None:
                sriov.check_devlink_rate(bytes_per_s * _BITS)
            else:
                sriov.set_devlink_rate(one.vf, kind, bytes_per_s * _BITS)
        except Refused as cause:
            raise self._rejected(cause.condition, errno_number(cause.errno)) from cause

    def _within(self, payload: bytes, limits: tuple[int, int] | None, condition: str) -> int:
        value = number_of(payload)
        if limits is not None and not limits[0] <= value <= limits[1]:
            raise self._rejected(condition, errno.EINVAL)
        return value

    def _set_parent(self, one: RateObject, name: str) -> None:
        if not name:
            if one.parent is None:
                return
            one.parent = None
            return
        parent = self.nodes.get(name)
        if parent is None:
            raise RejectedError(errno.ENODEV)
        if parent is one:
            raise RejectedError(errno.EINVAL, "Parent to self is not allowed")
        above = parent.parent
        while one.is_node and above is not None:
            if above is one:
                raise RejectedError(errno.EEXIST, "Node is already a parent of parent node.")
            above = above.parent
        one.parent = parent

    def _rejected(self, condition: str, number: int) -> RejectedError:
        driver = self.nic.profile.driver
        words = _TEXTS.get((driver, condition))
        return RejectedError(number, f"{driver}: {words}" if words else "")


def _node_name(attributes: Mapping[int, bytes]) -> str:
    if NODE_NAME not in attributes:
        raise RejectedError(errno.EINVAL)
    name = text_of(attributes[NODE_NAME])
    if not name or (name.isascii() and name.isdigit()):
        raise RejectedError(errno.EINVAL)
    return name
