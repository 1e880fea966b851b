"""Thousands of messages in few sends, and the kernel's answer to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nicoffload.errors import KernelError, NicOffloadError
from nicoffload.kernel.netlink import KernelRefusal, Message, Netlink
from nicoffload.kernel.tc.template import Rows, Template, fill_block

MESSAGES_A_SEND = 64
_BYTES_A_SEND = 128 * 1024
_SENDS_A_BLOCK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of the rows of one send.

    Args:
        start: First row.
        stop: One past the last.
        refused: Row to why; a row that is not here succeeded, unless `lost`.
        replies: Row to the message that the kernel sent back for it, where one was asked for.
        lost: Why there is no answer at all; None where there is.
    """

    start: int
    stop: int
    refused: dict[int, KernelRefusal]
    replies: dict[int, Message]
    lost: KernelError | None = None

    def errors(self, message: str, *, capability: str, device: str) -> Iterator[tuple[int, NicOffloadError]]:
        """Yield row and error of each row that did not succeed, as far as is known."""
        if self.lost is not None:
            yield from ((row, self.lost) for row in range(self.start, self.stop))
        for row, refusal in self.refused.items():
            yield row, refusal.error(message, capability=capability, device=device)


def send_rows(netlink: Netlink, template: Template, rows: Rows) -> Iterator[Sent]:
    """Send the messages of one template, 64 at a time, each send with one acknowledgement at its end.

    When an answer is lost, the sends behind it are tried all the same.
    """
    count = len(rows.handles)
    each = max(1, min(MESSAGES_A_SEND, _BYTES_A_SEND // len(template.data)))
    for base in range(0, count, each * _SENDS_A_BLOCK):
        end = min(base + each * _SENDS_A_BLOCK, count)
        first = netlink.reserve(end - base)
        block = fill_block(template, rows, first, each, base, end)
        for start in range(base, end, each):
            stop = min(start + each, end)
            data = block[start - base : stop - base].reshape(-1).data
            yield _one_send(netlink, data, start, stop, first - base)


def _one_send(netlink: Netlink, data: memoryview, start: int, stop: int, row_0: int) -> Sent:
    """Send some rows, of which row 0 would have the sequence number `row_0`."""
    try:
        answer = netlink.batch(data, row_0 + stop - 1)
    except KernelError as lost:
        return Sent(start=start, stop=stop, refused={}, replies={}, lost=lost)
    rows = range(start, stop)
    return Sent(
        start=start,
        stop=stop,
        refused={n - row_0: why for n, why in answer.refusals.items() if n - row_0 in rows},
        replies={reply.sequence - row_0: reply for reply in answer.replies if reply.sequence - row_0 in rows},
    )
