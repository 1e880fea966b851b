"""Devlink on a real kernel, held against the program devlink in both directions."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
)
from nicoffload.kernel.devlink import (
    Devlink,
    EncapMode,
    EswitchMode,
    FunctionState,
    Handle,
    InlineMode,
    PortFlavour,
    Rate,
    RateChange,
    RateLeaf,
    RateNode,
    create_node_command,
    delete_node_command,
    eswitch_command,
    function_command,
    rate_command,
)
from nicoffload.kernel.linux import LinuxKernel

STEP_BPS = 1_000_000
"""The simulated NIC takes whole Mbit/s, to 5000 of them."""
VFS = 4
OPERATIONS = 300


@pytest.fixture
def devlink() -> Iterator[Devlink]:
    with Devlink(LinuxKernel()) as one:
        yield one


@pytest.fixture
def switched(simulated_nic, sh):
    """Make a NIC with VFs, in switchdev mode, and return its handle."""

    def make() -> Handle:
        nic = simulated_nic()
        nic.set_vfs(VFS)
        sh(f"devlink dev eswitch set {nic.handle} mode switchdev")
        return Handle.of(nic.handle)

    return make


def rates_by_program(ask, handle: Handle) -> dict[str, tuple[str, int, int, str]]:
    """Return kind, share and limit in bit/s and parent of each rate, as the program tells them: in bytes/s."""
    shown = ask("devlink -j port function rate show")["rate"]
    return {
        name.removeprefix(f"{handle}/"): (
            one["type"],
            8 * one.get("tx_share", 0),
            8 * one.get("tx_max", 0),
            one.get("parent", ""),
        )
        for name, one in shown.items()
        if name.startswith(f"{handle}/")
    }


def rates_by_us(devlink: Devlink, handle: Handle) -> dict[str, tuple[str, int, int, str]]:
    return {str(rate.ref): flat(rate) for rate in devlink.rates(handle)}


def flat(rate: Rate) -> tuple[str, int, int, str]:
    kind = "leaf" if isinstance(rate.ref, RateLeaf) else "node"
    return kind, rate.tx_share_bps, rate.tx_max_bps, rate.parent


class RandomTree:
    """Random changes of the rates of one NIC, and what they must lead to.

    Args:
        seed: Of the random numbers.
        leaves: Indexes of the ports that have a rate.
    """

    def __init__(self, seed: int, leaves: list[int]) -> None:
        self._random = random.Random(seed)
        self.wanted: dict[str, tuple[str, int, int, str]] = {str(i): ("leaf", 0, 0, "") for i in leaves}

    def nodes(self) -> list[str]:
        return [name for name, one in self.wanted.items() if one[0] == "node"]

    def step(self) -> tuple[str, str, RateChange]:
        """Return what to do (new, set, del), to what, and the change; the wish follows."""
        free = [name for name in self.nodes() if all(one[3] != name for one in self.wanted.values())]
        kind = self._random.choices(["new", "set", "del"], [2 if len(self.nodes()) < 12 else 0, 6, 1])[0]
        if kind == "del" and free:
            name = self._random.choice(free)
            del self.wanted[name]
            return "del", name, RateChange()
        if kind == "new":
            name = f"node-{self._random.randrange(10**6)}"
            self.wanted[name] = ("node", 0, 0, "")
        else:
            kind, name = "set", self._random.choice(list(self.wanted))
        change = self._change(name)
        old = self.wanted[name]
        share, most, parent = change.tx_share_bps, change.tx_max_bps, change.parent
        self.wanted[name] = (
            old[0],
            old[1] if share is None else share,
            old[2] if most is None else most,
            old[3] if parent is None else parent,
        )
        return kind, name, change

    def _change(self, name: str) -> RateChange:
        one = self._random
        share = one.choice([None, 0, one.randint(1, 5000) * STEP_BPS])
        most = one.choice([None, 0, one.randint(1, 5000) * STEP_BPS])
        parents = [node for node in self.nodes() if not self._within(node, name)]
        # A parent is taken away only where there is one: the kernel refuses the rest.
        parents += [""] if self.wanted[name][3] else []
        parent = one.choice([None, *parents])
        if share is None and most is None and parent is None:
            share = 0
        _, old_share, old_most, _ = self.wanted[name]
        if 0 < (old_most if most is None else most) < (old_share if share is None else share):
            share = 0  # the program takes no guarantee above the limit
        return RateChange(tx_share_bps=share, tx_max_bps=most, parent=parent)

    def _within(self, node: str, name: str) -> bool:
        while node:
            if node == name:
                return True
            node = self.wanted[node][3]
        return False


def ref_of(name: str) -> RateLeaf | RateNode:
    return RateLeaf(port=int(name)) if name.isdecimal() else RateNode(name=name)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_trees_of_rates_agree_with_the_program_both_ways(devlink, switched, sh, ask, seed):
    ours, theirs = switched(), switched()
    leaves = [rate.ref.port for rate in devlink.rates(ours)]
    assert len(leaves) == VFS
    tree = RandomTree(seed, leaves)
    for number in range(OPERATIONS // 2):
        kind, name, change = tree.step()
        ref = ref_of(name)
        if kind == "set":
            devlink.set_rate(ours, ref, change)
            sh(rate_command(theirs, ref, change))
        elif kind == "new":
            devlink.create_node(ours, ref, change)
            sh(create_node_command(theirs, ref, change))
        else:
            devlink.delete_node(ours, ref)
            sh(delete_node_command(theirs, ref))
        for handle in (ours, theirs):
            assert rates_by_us(devlink, handle) == tree.wanted, (number, kind, name, change)
            if name in tree.wanted:
                assert flat(devlink.rate(handle, ref)) == tree.wanted[name]
        if number % 5 == 0:
            assert rates_by_program(ask, ours) == rates_by_program(ask, theirs) == tree.wanted
    assert rates_by_program(ask, ours) == rates_by_program(ask, theirs) == tree.wanted
    assert len(tree.nodes()) > 3


def test_every_device_port_and_info_is_the_program_s(devlink, switched, ask):
    handles = {switched(), switched()}
    assert handles <= set(devlink.devices())
    assert {str(handle) for handle in devlink.devices()} == set(ask("devlink -j dev show")["dev"])
    shown = ask("devlink -j port show")["port"]
    ports = devlink.ports()
    assert {f"{port.handle}/{port.index}" for port in ports} == set(shown)
    for port in ports:
        theirs = shown[f"{port.handle}/{port.index}"]
        assert port == devlink.port(port.handle, port.index)
        assert port.ifname == theirs["netdev"]
        assert port.flavour.value == theirs["flavour"]
        assert (port.number, port.pf, port.vf, port.controller) == tuple(
            theirs.get(key) for key in ("port", "pfnum", "vfnum", "controller")
        )
        assert port.external is theirs.get("external", False)
    for handle in handles:
        assert [port.flavour for port in devlink.ports(handle)].count(PortFlavour.PCI_VF) == VFS
        info = devlink.info(handle)
        assert info.driver == ask(f"devlink -j dev info {handle}")["info"][str(handle)]["driver"]


def test_the_mode_of_the_switch_is_the_program_s_both_ways(devlink, simulated_nic, sh, ask):
    handle = Handle.of(simulated_nic().handle)

    def by_program() -> str:
        return ask(f"devlink -j dev eswitch show {handle}")["dev"][str(handle)]["mode"]

    assert devlink.eswitch(handle).mode is EswitchMode.LEGACY
    for mode in (EswitchMode.SWITCHDEV, EswitchMode.LEGACY):
        devlink.set_eswitch(handle, mode=mode)
        assert by_program() == mode.value
    for mode in (EswitchMode.SWITCHDEV, EswitchMode.LEGACY):
        sh(eswitch_command(handle, mode=mode))
        assert devlink.eswitch(handle).mode is mode
    assert devlink.eswitch(handle).inline_mode is None


def test_what_the_driver_lacks_is_not_supported(devlink, switched, tell):
    handle = switched()
    port = next(port for port in devlink.ports(handle) if port.flavour is PortFlavour.PCI_VF)
    with pytest.raises(NotSupportedError):
        devlink.set_eswitch(handle, inline_mode=InlineMode.NETWORK)
    with pytest.raises(NotSupportedError):
        devlink.set_eswitch(handle, encap_mode=EncapMode.BASIC)
    with pytest.raises(NotSupportedError) as refused:
        devlink.set_function(handle, port.index, hw_addr=0x02_00_00_00_00_01)
    said = tell(*function_command(handle, port.index, hw_addr=0x02_00_00_00_00_01).split())
    assert refused.value.kernel_message
    assert refused.value.kernel_message in said.err
    with pytest.raises(NotSupportedError):
        devlink.set_function(handle, port.index, state=FunctionState.ACTIVE)
    for change in (RateChange(tx_priority=1), RateChange(tx_weight=1)):
        with pytest.raises(NotSupportedError, match="supported for the leafs"):
            devlink.set_rate(handle, RateLeaf(port=port.index), change)


def test_refusals_carry_the_kernel_s_words(devlink, switched):
    handle = switched()
    node, leaf = RateNode(name="group"), devlink.rates(handle)[0].ref
    devlink.create_node(handle, node, RateChange(tx_max_bps=STEP_BPS))
    with pytest.raises(ConflictError):
        devlink.create_node(handle, node)
    with pytest.raises(DeviceBusyError, match="Rate node"):
        devlink.set_eswitch(handle, mode=EswitchMode.LEGACY)
    with pytest.raises(InvalidRequestError) as refused:
        devlink.set_rate(handle, leaf, RateChange(tx_max_bps=STEP_BPS + 8))
    assert refused.value.kernel_message
    devlink.set_rate(handle, leaf, RateChange(parent="group"))
    with pytest.raises(DeviceBusyError):
        devlink.delete_node(handle, node)
    with pytest.raises(NicOffloadError):
        devlink.set_rate(handle, node, RateChange(parent="group"))
    devlink.set_rate(handle, leaf, RateChange(parent=""))
    devlink.delete_node(handle, node)
    assert [rate.ref for rate in devlink.rates(handle) if isinstance(rate.ref, RateNode)] == []


def test_a_part_that_is_not_there_is_told_from_a_device_that_is_not_there(devlink, switched):
    handle, gone = switched(), Handle(bus="netdevsim", name="netdevsim9999")
    leaf, node = RateLeaf(port=77), RateNode(name="nobody")
    for call in (
        lambda at: devlink.port(at, 77),
        lambda at: devlink.rate(at, leaf),
        lambda at: devlink.rate(at, node),
        lambda at: devlink.set_rate(at, node, RateChange(tx_max_bps=0)),
        lambda at: devlink.delete_node(at, node),
    ):
        with pytest.raises(NotFoundError):
            call(handle)
        with pytest.raises(DeviceGoneError):
            call(gone)
    for call in (devlink.info, devlink.eswitch):
        with pytest.raises(DeviceGoneError):
            call(gone)
