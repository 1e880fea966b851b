"""One batch of packets, made ready for replay: which packet is of which flow, and who gets it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.flows import FlowTable
from nicoffload.flexivoffload.headers import flow_keys
from nicoffload.flexivoffload.policy.decide import FirstVerdicts, judge_first_packets
from nicoffload.flexivoffload.policy.types import Policy
from nicoffload.flexivoffload.vms import RX, TX, VmDirectory
from nicoffload.packets import PacketBatch

Ints = npt.NDArray[np.int64]
_FIN_RST = 0x5
_SYN = 0x2


class Chunk:
    """A batch, with its flows numbered in the order in which they appear in it.

    Args:
        batch: The packets.
        time_ns: int64[N], their times, never decreasing.
        start_ns: Time of the capture's first packet, where the NIC's clock starts.
        table: The flows that are known.
        directory: Whose packets are whose.
        policy: What is wanted of new flows.
    """

    def __init__(
        self,
        batch: PacketBatch,
        time_ns: Ints,
        start_ns: int,
        table: FlowTable,
        directory: VmDirectory,
        policy: Policy,
    ) -> None:
        self.batch = batch
        self.time_ns = time_ns
        self.nic_time_ns = time_ns - start_ns
        count, distinct = len(batch), len(batch.headers)
        first = np.full(distinct, count, np.int64)
        first[batch.header_index[::-1]] = np.arange(count - 1, -1, -1)
        seen = np.argsort(first, kind="stable")[: int((first < count).sum())]
        numbers: dict[bytes, int] = {}
        keys = flow_keys(batch.headers[seen])
        flow_of_header = np.zeros(distinct, np.int64)
        flow_of_header[seen] = [numbers.setdefault(key, len(numbers)) for key in keys]
        self.keys = list(numbers)
        self.flow = flow_of_header[batch.header_index]
        """int64[N], the number of each packet's flow."""
        flows = len(self.keys)
        self.row = np.array([table.find(key) for key in self.keys], np.int64)
        """int64[F], row of each flow in the table; -1 until its first packet is reached."""
        self.first_packet = np.full(flows, count, np.int64)
        np.minimum.at(self.first_packet, flow_of_header[seen], first[seen])
        self.new = np.flatnonzero(self.row < 0)
        """The flows that are not in the table, in the order of their first packets."""
        first_headers = batch.headers[batch.header_index[self.first_packet[self.new]]]
        self.l2_bytes = first_headers["l2_bytes"].astype(np.int64)
        self.ends = directory.look_up(first_headers)
        self.verdicts: FirstVerdicts = judge_first_packets(
            policy, first_headers, self.ends.in_port, self.ends.vm, [vm.name for vm in directory.vms]
        )
        self.kind = np.zeros(flows, np.int8)
        self.vm = np.full(flows, -1, np.int64)
        known = self.row >= 0
        self.kind[known], self.vm[known] = table.kind[self.row[known]], table.vm[self.row[known]]
        self.kind[self.new], self.vm[self.new] = self.ends.kind, self.ends.vm
        self.path = np.zeros(count, np.uint8)
        """uint8[N], see `replay`: 0 virtual switch, 1 NIC, 2 dropped by the NIC."""
        flags = batch.headers["tcp_flags"]
        self.ends_flow = ((flags & _FIN_RST) != 0)[batch.header_index]
        self.opens_flow = ((flags & _SYN) != 0)[batch.header_index]
        kind_of_packet = self.kind[self.flow]
        self.rx_packets = np.flatnonzero(kind_of_packet == RX)
        self.rx = self.part(self.rx_packets)
        is_tx = np.flatnonzero(kind_of_packet == TX)
        vm_of_tx = self.vm[self.flow[is_tx]]
        self.tx_packets = {vm: is_tx[vm_of_tx == vm] for vm in np.unique(vm_of_tx).tolist()}
        """VM to its packets, whichever way they go."""

    def __len__(self) -> int:
        return len(self.batch)

    def part(self, packets: Ints) -> PacketBatch:
        """Return some packets as a batch of their own, with only the headers that they have, on the NIC's clock."""
        index = self.batch.header_index[packets]
        used = np.zeros(len(self.batch.headers), np.bool_)
        used[index] = True
        place = np.cumsum(used) - 1
        return PacketBatch(
            time_ns=self.nic_time_ns[packets],
            wire_bytes=self.batch.wire_bytes[packets],
            header_index=place[index].astype(np.int32),
            headers=self.batch.headers[used],
        )


def group_sums(groups: Ints, count: int, weights: Sequence[int] | Ints | None = None) -> Ints:
    """Return for each group how many members it has, or the sum of their weights, exactly."""
    if weights is None:
        return np.bincount(groups, minlength=count)
    # Sums of one batch stay far below 2**53, where a float is exact.
    return np.bincount(groups, weights=weights, minlength=count).astype(np.int64)
