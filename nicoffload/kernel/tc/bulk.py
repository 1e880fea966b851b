"""Thousands of messages in few sends, and the kernel's answer to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nicoffload.errors import KernelError, NicOffloadError
from nicoffload.kernel.netlink import HEADER, NLM_F_ECHO, NLM_F_REPLACE, KernelRefusal, Message, Netlink
from nicoffload.kernel.tc.lost import look, place
from nicoffload.kernel.tc.template import RTM_NEWTFILTER, TCMSG, Rows, Template, fill_block

MESSAGES_A_SEND = 64
_BYTES_A_SEND = 128 * 1024
_SENDS_A_BLOCK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of the rows of one send.

    Args:
        start: First row.
        stop: One past the last.
        refused: Row to why the kernel refused it. A row that is neither here nor in `failed` succeeded.
        replies: Row to the message that the kernel sent back for it, where one was asked for.
        failed: Row to the error of what the kernel did not answer, and what did not succeed as far as can be read.
        warnings: Row to what the kernel said of a filter that it took all the same; it tells only of the last row.
    """

    start: int
    stop: int
    refused: dict[int, KernelRefusal]
    replies: dict[int, Message]
    failed: dict[int, NicOffloadError] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)

    def errors(self, message: str, *, capability: str, device: str) -> Iterator[tuple[int, NicOffloadError]]:
        """Yield row and error of each row that did not succeed, as far as is known."""
        for row, error in self.failed.items():
            error.device = error.device or device
            yield row, error
        for row, refusal in self.refused.items():
            yield row, refusal.error(message, capability=capability, device=device)


def send_rows(netlink: Netlink, template: Template, rows: Rows) -> Iterator[Sent]:
    """Send the messages of one template, 64 at a time, each send with one acknowledgement at its end.

    When an answer is lost, what became of that send is read, and the sends behind it are tried all the same.
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
            yield _one_send(netlink, template, data, start, stop, first - base)


def _one_send(
    netlink: Netlink, template: Template, data: memoryview, start: int, stop: int, row_0: int
) -> Sent:
    """Send some rows, of which row 0 would have the sequence number `row_0`."""
    flags: int = HEADER.unpack_from(template.data)[2]
    size = len(template.data)
    try:
        answer = netlink.batch(data, row_0 + stop - 1)
    except KernelError as lost:
        sent = Sent(start=start, stop=stop, refused={}, replies={})
        each = [bytes(data[at : at + size]) for at in range(0, len(data), size)]
        for row, fate in enumerate(look(netlink, each, lost, replace=bool(flags & NLM_F_REPLACE)), start):
            if isinstance(fate, NicOffloadError):
                sent.failed[row] = fate
            elif fate is not None:
                sent.replies[row] = fate
        return sent
    rows = range(start, stop)
    sent = Sent(
        start=start,
        stop=stop,
        refused={n - row_0: why for n, why in answer.refusals.items() if n - row_0 in rows},
        replies={reply.sequence - row_0: reply for reply in answer.replies if reply.sequence - row_0 in rows},
        warnings={n - row_0: text for n, text in answer.warnings.items() if n - row_0 in rows},
    )
    if flags & NLM_F_ECHO:
        for row in rows:
            if row in sent.refused or _handle(sent.replies.get(row)):
                continue
            fate = place(netlink, bytes(data[(row - start) * size : (row - start + 1) * size]))
            if isinstance(fate, NicOffloadError):
                sent.failed[row] = fate
            else:
                sent.replies[row] = fate
    return sent


def _handle(reply: Message | None) -> int:
    """Return the handle that a new filter came back with; 0 where it did not come back."""
    if reply is None or reply.kind != RTM_NEWTFILTER or len(reply.payload) < TCMSG.size:
        return 0
    handle: int = TCMSG.unpack_from(reply.payload)[2]
    return handle


def placed(sent: Sent, row: int, asked: int) -> int:
    """Return the handle of a filter that was installed: as it was asked for, or as the kernel chose it."""
    return asked or _handle(sent.replies.get(row))
