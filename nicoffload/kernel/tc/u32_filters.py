"""Filters of u32 on one hook: single words by the thousand, and five-tuples in tables of their own for ixgbe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nicoffload.errors import KernelError, NicOffloadError, NotFoundError
from nicoffload.kernel.attributes import Buffer, fields, nested, number, parse, string, text
from nicoffload.kernel.attributes import u32 as u32_attribute
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, messages
from nicoffload.kernel.tc import read, u32
from nicoffload.kernel.tc.actions import cookie_offset, decode_action, encode_actions
from nicoffload.kernel.tc.bulk import placed, send_rows
from nicoffload.kernel.tc.columns import FilterColumns, columns
from nicoffload.kernel.tc.hooked import Hooked, removable
from nicoffload.kernel.tc.template import (
    RTM_DELTFILTER,
    RTM_NEWTFILTER,
    TCA_CHAIN,
    TCA_KIND,
    TCA_OPTIONS,
    TCMSG,
    Rows,
    Template,
    del_filter,
    info,
    new_filter,
    protocol_of,
)
from nicoffload.kernel.tc.u32 import CAPABILITY, U32Filter
from nicoffload.kernel.tc.values import Counters, FilterRef, TcAction, UnknownAction
from nicoffload.model import Match
from nicoffload.model.action import check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class U32State:
    """A filter of u32 as read.

    Args:
        ref: Where it is.
        item: What it says.
        match: What packets that means, together with the filter that leads to its table; None where a part of it has
            no form here.
        in_hw: Whether the NIC runs it, as the kernel says; None where it does not say.
        counters: Its counters; None where it has no action to count.
        foreign: What of it has no form here, in words.
    """

    ref: FilterRef
    item: U32Filter
    match: Match | None
    in_hw: bool | None
    counters: Counters | None
    foreign: tuple[str, ...] = ()


@dataclass(slots=True)
class _Group:
    """Filters that share a template."""

    template: Template
    places: list[int] = field(default_factory=list)
    actions: list[bytes] = field(default_factory=list)


class U32Filters(Hooked):
    """The u32 filters of one hook."""

    def add_table(
        self, pref: int, table: int, *, buckets: int = 1, protocol: int = 0x0800, chain: int = 0
    ) -> None:
        """Make a hash table.

        Equivalent to: ``tc filter add dev NIC ingress protocol ip pref N handle T: u32 divisor B``

        Args:
            pref: The pref whose filters may lead to it.
            table: Its number, 1 to 4095.
            buckets: A power of two up to 256.
            protocol: Ethernet type of the pref.
            chain: Its chain.

        Raises:
            NicOffloadError: The kernel refuses; `ConflictError`: there is one of that number.
        """
        payload = TCMSG.pack(0, self.hook.ifindex, table << 20, self.hook.parent, info(pref, protocol))
        payload += u32_attribute(TCA_CHAIN, chain) + text(TCA_KIND, "u32")
        payload += nested(TCA_OPTIONS, u32_attribute(u32.DIVISOR, buckets))
        refused, _ = self._netlink.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, payload)
        if refused:
            raise refused.error(f"making table {table:x}", capability=CAPABILITY, device=self._device)

    def add_many(self, items: Sequence[U32Filter]) -> list[FilterRef | NicOffloadError]:
        """Install filters in one go; outcome i is that of filter i. A refused one leaves no trace and stops no other.

        Equivalent to: ``tc -batch`` with a line ``filter add … u32 ht T:B: match u32 VALUE MASK at OFFSET …`` each.

        Returns:
            For each filter where it is, or why it is not.
        """
        outcomes: list[FilterRef | NicOffloadError] = [KernelError("the kernel did not answer")] * len(items)
        for group in self._grouped(items, outcomes):
            chosen = [items[place] for place in group.places]
            for sent in send_rows(self._netlink, group.template, _rows(group, chosen)):
                for row in range(sent.start, sent.stop):
                    outcomes[group.places[row]] = _ref(chosen[row], placed(sent, row, chosen[row].handle))
                for row, error in sent.errors(
                    "installing a u32 filter", capability=CAPABILITY, device=self._device
                ):
                    outcomes[group.places[row]] = error
        return outcomes

    def add_columns(
        self,
        like: U32Filter,
        values: npt.NDArray[np.uint32],
        handles: npt.NDArray[np.uint32],
        *,
        cookies: npt.NDArray[np.uint8] | None = None,
    ) -> dict[int, NicOffloadError]:
        """Install filters that differ in the values of their words only, without an object for each.

        Args:
            like: What they have in common: words and masks, actions, pref, placing.
            values: uint32[N, words].
            handles: uint32[N], table << 20 | bucket << 12 | node, no node 0.
            cookies: uint8[N, 16], rule ids; needs a rule id in `like`.

        Returns:
            Row to error, of each filter that was refused; all others stand.
        """
        with_id = like.rule_id is not None
        actions = encode_actions(like.actions, bytes(16) if with_id else None)
        template = self._template(like, actions, cookie_offset(like.actions) if with_id else None)
        count = len(handles)
        if cookies is None and like.rule_id is not None:
            cookies = np.broadcast_to(np.frombuffer(like.rule_id.bytes, np.uint8), (count, 16))
        rows = Rows(
            columns=[handles & np.uint32(~u32.MAX_NODE & 0xFFFF_FFFF), *values.T],
            handles=handles,
            prefs=np.broadcast_to(np.uint32(like.pref), count),
            chains=np.broadcast_to(np.uint32(like.chain), count),
            cookies=cookies,
        )
        return {
            row: error
            for sent in send_rows(self._netlink, template, rows)
            for row, error in sent.errors(
                "installing a u32 filter", capability=CAPABILITY, device=self._device
            )
        }

    def delete_many(self, refs: Sequence[FilterRef]) -> list[NicOffloadError | None]:
        """Remove filters and empty tables (handle T << 20), in this order; answer i is None when it is gone.

        A pref or a handle of 0, which to the kernel means all there are, is refused.

        Equivalent to: ``tc -batch`` with a line ``filter del … handle T:B:N u32`` each.
        """
        answers, shapes = removable(refs, self._device)
        for (_, protocol), places in shapes.items():
            rows = Rows(
                columns=(),
                handles=np.array([refs[i].handle for i in places], np.uint32),
                prefs=np.array([refs[i].pref for i in places], np.uint32),
                chains=np.array([refs[i].chain for i in places], np.uint32),
            )
            for sent in send_rows(self._netlink, del_filter("u32", self.hook, protocol), rows):
                for row, error in sent.errors(
                    "removing a u32 filter", capability=CAPABILITY, device=self._device
                ):
                    answers[places[row]] = error
        return answers

    def dump(self, *, pref: int = 0, chain: int | None = None) -> list[U32State]:
        """Return the u32 filters of the hook, of whatever owner; each with the match that it means.

        Equivalent to: ``tc -s -d filter show dev NIC ingress``

        Raises:
            NicOffloadError: The kernel refuses.
        """
        found = read.request(self._netlink, self.hook, pref=pref, chain=chain)
        return states(found)

    def counters(self, *, pref: int = 0) -> FilterColumns:
        """Return the counters of the hook's filters in columns, and when each was last used.

        Equivalent to: ``tc -s filter show dev NIC ingress``

        Args:
            pref: Only these; 0 for all.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        return columns(read.request(self._netlink, self.hook, pref=pref))

    def delete_pref(self, pref: int, *, protocol: int) -> None:
        """Remove all filters of a pref and its tables, whoever's they are: for a hook of ours alone. Repeatable.

        Equivalent to: ``tc filter del dev NIC ingress pref N``

        Args:
            pref: 1 to 65535.
            protocol: Ethernet type of the pref.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        check_range("pref", pref, 1, 0xFFFF)
        payload = TCMSG.pack(0, self.hook.ifindex, 0, self.hook.parent, info(pref, protocol))
        payload += u32_attribute(TCA_CHAIN, 0) + text(TCA_KIND, "u32")
        refused, _ = self._netlink.request(RTM_DELTFILTER, 0, payload)
        if refused is None:
            return
        error = refused.error(f"removing pref {pref}", capability=CAPABILITY, device=self._device)
        if not isinstance(error, NotFoundError):
            raise error

    def _grouped(
        self, items: Sequence[U32Filter], outcomes: list[FilterRef | NicOffloadError]
    ) -> list[_Group]:
        """Return the filters by shape; what can't be written gets its outcome here."""
        groups: dict[object, _Group] = {}
        written: dict[tuple[tuple[TcAction, ...], bool], bytes] = {}
        for place, item in enumerate(items):
            has_id = item.rule_id is not None
            try:
                data = written.get((item.actions, has_id))
                if data is None:
                    data = encode_actions(item.actions, bytes(16) if has_id else None)
                    written[item.actions, has_id] = data
                cookie = cookie_offset(item.actions) if has_id else None
                key = (u32.shape(item), item.placing, item.node == 0, len(data), cookie)
                group = groups.get(key)
                if group is None:
                    group = groups[key] = _Group(self._template(item, data, cookie))
            except NicOffloadError as error:
                error.device = self._device
                outcomes[place] = error
                continue
            group.places.append(place)
            group.actions.append(data)
        return list(groups.values())

    def _template(self, item: U32Filter, actions: bytes, cookie: int | None) -> Template:
        return new_filter(
            "u32",
            NLM_F_CREATE | NLM_F_EXCL | (0 if item.node else NLM_F_ECHO),
            self.hook,
            u32.compile_keys(item),
            before=u32_attribute(u32.FLAGS, item.placing.value),
            actions_kind=u32.ACT,
            actions=actions,
            cookie_in_actions=cookie,
        )


def _rows(group: _Group, chosen: Sequence[U32Filter]) -> Rows:
    cookies = None
    if group.template.cookie_at is not None:
        joined = b"".join(item.rule_id.bytes for item in chosen if item.rule_id is not None)
        cookies = np.frombuffer(joined, np.uint8).reshape(-1, 16)
    actions = None
    if any(data is not group.actions[0] for data in group.actions):
        actions = np.frombuffer(b"".join(group.actions), np.uint8).reshape(len(chosen), -1)
    values = zip(*([key.value for key in item.keys] for item in chosen), strict=True)
    return Rows(
        columns=[
            np.array([item.table << 20 | item.bucket << 12 for item in chosen], np.uint32),
            *(np.array(column, np.uint32) for column in values),
        ],
        handles=np.array([item.handle for item in chosen], np.uint32),
        prefs=np.array([item.pref for item in chosen], np.uint32),
        chains=np.array([item.chain for item in chosen], np.uint32),
        actions=actions,
        cookies=cookies,
    )


def _ref(item: U32Filter, handle: int) -> FilterRef:
    return FilterRef(pref=item.pref, handle=handle, chain=item.chain, protocol=item.protocol, kind="u32")


def states(datagrams: Sequence[Buffer]) -> list[U32State]:
    """Return the u32 filters of a dump's datagrams.

    Raises:
        MalformedError: They break their format.
    """
    found = [state for datagram in datagrams for state in _each(datagram)]
    leading: Mapping[tuple[int, int, int], U32State] = {
        (state.ref.chain, state.ref.pref, state.item.link): state for state in found if state.item.link
    }
    return [_joined(state, leading) for state in found]


def _each(datagram: Buffer) -> Iterator[U32State]:
    for message in messages(datagram):
        if message.kind == RTM_NEWTFILTER and (state := _decode(message.payload)) is not None:
            yield state


def _decode(payload: Buffer) -> U32State | None:
    _, _, handle, _, word = fields(TCMSG, payload)
    attributes = parse(payload, TCMSG.size)
    if bytes(attributes.get(TCA_KIND, b"")) != b"u32\0" or TCA_OPTIONS not in attributes:
        return None
    options = parse(attributes[TCA_OPTIONS])
    if not handle & u32.MAX_NODE or u32.SEL not in options or not word >> 16:
        return None
    keys, link, hashed, foreign = u32.decode(options)
    flags = number(options[u32.FLAGS], 4) if u32.FLAGS in options else 0
    entries = read.entries(options.get(u32.ACT, b""))
    actions = tuple(decode_action(entry) for entry in entries)
    foreign += [f"action {one.kind} ({one.detail})" for one in actions if isinstance(one, UnknownAction)]
    chain = number(attributes[TCA_CHAIN], 4) if TCA_CHAIN in attributes else 0
    ref = FilterRef(pref=word >> 16, handle=handle, chain=chain, protocol=protocol_of(word), kind="u32")
    rule_id = read.rule_id(entries)
    if not (actions or link) or not (keys or link or rule_id):
        return None  # does nothing, or takes all that is left without being a rule: nobody's
    item = U32Filter(
        keys=keys,
        actions=actions,
        pref=ref.pref,
        node=handle & u32.MAX_NODE,
        table=handle >> 20,
        bucket=handle >> 12 & 0xFF,
        link=link,
        hash=hashed,
        indev=string(options.get(u32.INDEV, b"")),
        class_id=number(options[u32.CLASSID], 4) if u32.CLASSID in options else 0,
        protocol=ref.protocol,
        placing=read.placing(flags),
        rule_id=rule_id,
        chain=chain,
    )
    return U32State(
        ref=ref,
        item=item,
        match=None,
        in_hw=read.in_hardware(flags),
        counters=read.counters(entries[0]) if entries else None,
        foreign=tuple(foreign),
    )


def _joined(state: U32State, leading: Mapping[tuple[int, int, int], U32State]) -> U32State:
    """Return the state with its match, which of a filter in a table includes what leads there."""
    keys = state.item.keys
    foreign = list(state.foreign)
    foreign += ["a table by hash"] if state.item.hash is not None else []
    leader = leading.get((state.ref.chain, state.ref.pref, state.item.table))
    if leader is not None:
        keys = leader.item.keys + keys
        foreign += leader.foreign
        foreign += ["a bucket by hash"] if leader.item.hash is not None else []
    elif any(key.next_header for key in keys):
        foreign.append(f"nothing leads to table {state.item.table:x}")
    try:
        match, strange = u32.decode_match(state.ref.protocol, keys)
    except NicOffloadError as cause:
        match, strange = None, [cause.message]
    foreign += strange
    return U32State(
        ref=state.ref,
        item=state.item,
        match=None if foreign else match,
        in_hw=state.in_hw,
        counters=state.counters,
        foreign=tuple(foreign),
    )
