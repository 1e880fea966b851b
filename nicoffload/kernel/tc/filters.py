"""Filters of one hook: installed and removed by the thousand, each with its own answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotSupportedError,
)
from nicoffload.kernel.attributes import u32
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE
from nicoffload.kernel.tc import flower, matchall, read
from nicoffload.kernel.tc.actions import cookie_offset, encode_actions
from nicoffload.kernel.tc.alike import Alike, alike
from nicoffload.kernel.tc.bulk import placed, send_rows
from nicoffload.kernel.tc.columns import FilterColumns, columns
from nicoffload.kernel.tc.hooked import Hooked, removable
from nicoffload.kernel.tc.template import (
    RTM_NEWTFILTER,
    Keys,
    Rows,
    Template,
    del_filter,
    get_filter,
    new_filter,
)
from nicoffload.kernel.tc.values import OUR_HANDLES, FilterRef, FilterState, TcAction, TcFilter, our_handle
from nicoffload.model import Masked

FilterOutcome = FilterRef | NicOffloadError
"""What became of one filter of a bulk call: where it is, or why it is not."""

_BLANK_ID = bytes(16)
_HANDLE_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class _Classifier:
    """Numbers of a classifier's attributes, and what makes its keys."""

    classid: int
    flags: int
    act: int
    capability: str
    keys: Callable[[TcFilter], Keys]


def _flower_keys(item: TcFilter) -> Keys:
    return flower.compile_keys(flower.structure(item.match, item.outer_tpid, item.inner_tpid))


_CLASSIFIERS: Mapping[str, _Classifier] = MappingProxyType(
    {
        "flower": _Classifier(flower.CLASSID, flower.FLAGS, flower.ACT, flower.CAPABILITY, _flower_keys),
        "matchall": _Classifier(
            matchall.CLASSID,
            matchall.FLAGS,
            matchall.ACT,
            matchall.CAPABILITY,
            lambda item: matchall.compile_keys(item.match),
        ),
    }
)


@dataclass(slots=True)
class _Group:
    """Filters that share a template: their places in the request, and which of the group's actions each has."""

    template: Template
    places: list[int] = field(default_factory=list)
    which: list[int] = field(default_factory=list)
    actions: dict[bytes, int] = field(default_factory=dict)


class TcFilters(Hooked):
    """The filters of one hook."""

    def add(self, item: TcFilter, *, kind: str = "flower", replace: bool = False) -> FilterRef:
        """Install one filter.

        Equivalent to: ``tc filter add dev NIC ingress protocol P pref N handle H chain C flower …``

        Raises:
            NicOffloadError: As `add_many` would answer.
        """
        (outcome,) = self.add_many([item], kind=kind, replace=replace)
        if isinstance(outcome, NicOffloadError):
            raise outcome
        return outcome

    def add_many(
        self, items: Sequence[TcFilter], *, kind: str = "flower", replace: bool = False
    ) -> list[FilterOutcome]:
        """Install filters in one go; outcome i is that of filter i. A refused one leaves no trace and stops no other.

        Whether the NIC runs a filter that is not `Placing.HARDWARE` has to be read: a driver's refusal is silent.

        Equivalent to: ``tc -batch`` with a line ``filter add|replace …`` each.

        Args:
            items: The filters. With handle 0 the kernel chooses one, which costs a reply each; of one with a rule id,
                which may not have just any handle, this does (`our_handle`).
            kind: ``flower`` or ``matchall``.
            replace: Put it in the place of one with the same chain, pref and handle, in one step.

        Returns:
            For each filter where it is; or `ConflictError`: the handle is taken; `NotSupportedError`: the classifier
            or (for `Placing.HARDWARE`) the NIC can't; `ResourceExhaustedError`: the NIC is full; and so on. Where the
            kernel's answer is lost it is read what stands; an error that is `uncertain` says that this failed too.

        Raises:
            InvalidRequestError: No such kind.
        """
        if kind not in _CLASSIFIERS:
            raise InvalidRequestError(f"no classifier {kind!r} here", hint="flower or matchall")
        chosen = items if replace else [_with_handle(item, 0) for item in items]
        outcomes = self._add(chosen, kind, replace=replace)
        for attempt in range(1, _HANDLE_ATTEMPTS):
            again = [
                place
                for place, item in enumerate(items)
                if chosen[place] is not item and isinstance(outcomes[place], ConflictError)
            ]
            if not again:
                break
            others = self._add([_with_handle(items[place], attempt) for place in again], kind, replace=False)
            for place, outcome in zip(again, others, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _add(self, items: Sequence[TcFilter], kind: str, *, replace: bool) -> list[FilterOutcome]:
        """Install filters once, with the handles that they have."""
        # Of each filter that no group takes, _grouped tells why.
        outcomes: list[FilterOutcome] = [_NO_ANSWER] * len(items)
        flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
        for group in self._grouped(items, kind, flags, outcomes):
            chosen = [items[place] for place in group.places]
            for sent in send_rows(self._netlink, group.template, _rows(group, chosen)):
                for row in range(sent.start, sent.stop):
                    handle = placed(sent, row, chosen[row].handle)
                    outcomes[group.places[row]] = _ref(chosen[row], handle, group.template.protocol, kind)
                for row, error in sent.errors(
                    f"installing a {kind} filter",
                    capability=_CLASSIFIERS[kind].capability,
                    device=self._device,
                ):
                    outcomes[group.places[row]] = error
        return outcomes

    def add_columns(
        self,
        like: TcFilter,
        columns: Mapping[str, npt.NDArray[np.generic]],
        handles: npt.NDArray[np.uint32],
        *,
        cookies: npt.NDArray[np.uint8] | None = None,
        replace: bool = False,
    ) -> dict[int, NicOffloadError]:
        """Install flower filters that differ in values only, without an object for each.

        Args:
            like: What they have in common: fields and masks, actions, pref, chain, placing.
            columns: Field to its values, one a filter: integers, or uint8[N, 16] for IPv6; other fields are as in
                `like`. Ethernet type, protocol and fragments are always as in `like`.
            handles: uint32[N], none of them 0; from `OUR_HANDLES` where there are rule ids.
            cookies: uint8[N, 16], rule ids; needs a rule id in `like`.
            replace: As in `add_many`.

        Returns:
            Row to error, of each filter that was refused; all others stand.

        Raises:
            NotSupportedError: Flower can't match this.
            InvalidRequestError: A column is of no field of `like` that may differ, or of another length.
        """
        data, cookie = _Written().get(like.actions, with_id=like.rule_id is not None)
        flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
        template = self._template(like, "flower", flags, data, cookie)
        count = len(handles)
        names = [name for name, _ in like.match.shape]
        free = {names[slot.column] for slot in template.slots} - {"ip_proto"}
        if not columns.keys() <= free or any(len(column) != count for column in columns.values()):
            raise InvalidRequestError(
                f"columns {', '.join(columns)} do not fit {count} filters on {', '.join(sorted(free))}",
                path="/match",
            )
        if cookies is None and like.rule_id is not None:
            cookies = np.broadcast_to(np.frombuffer(like.rule_id.bytes, np.uint8), (count, 16))
        if cookies is not None and count and handles.min() < OUR_HANDLES:
            raise _handle_of_others(int(handles.min()))
        same = _value_columns(template, [like])
        rows = Rows(
            columns=[
                columns[name] if name in columns else np.broadcast_to(value, (count, *value.shape[1:]))
                for name, value in zip(names, same, strict=True)
            ],
            handles=handles,
            prefs=np.broadcast_to(np.uint32(like.pref), count),
            chains=np.broadcast_to(np.uint32(like.chain), count),
            cookies=cookies,
        )
        return {
            row: error
            for sent in send_rows(self._netlink, template, rows)
            for row, error in sent.errors(
                "installing a flower filter", capability=flower.CAPABILITY, device=self._device
            )
        }

    def delete_many(self, refs: Sequence[FilterRef]) -> list[NicOffloadError | None]:
        """Remove filters in one go; answer i is None when filter i is gone by this call, else why it is not.

        A pref or a handle of 0, which to the kernel means all there are, is refused.

        Equivalent to: ``tc -batch`` with a line ``filter del dev NIC ingress protocol P pref N handle H flower`` each.
        """
        answers, shapes = removable(refs, self._device)
        for (kind, protocol), places in shapes.items():
            rows = Rows(
                columns=(),
                handles=np.array([refs[i].handle for i in places], np.uint32),
                prefs=np.array([refs[i].pref for i in places], np.uint32),
                chains=np.array([refs[i].chain for i in places], np.uint32),
            )
            for sent in send_rows(self._netlink, del_filter(kind, self.hook, protocol), rows):
                for row, error in sent.errors(
                    f"removing a {kind} filter", capability=f"flow_filters.{kind}", device=self._device
                ):
                    answers[places[row]] = error
        return answers

    def dump(self, *, pref: int = 0, chain: int | None = None) -> list[FilterState]:
        """Return the filters of the hook, of whatever classifier and owner, with their offload state and counters.

        Equivalent to: ``tc -s -d filter show dev NIC ingress``

        Args:
            pref: Only these; 0 for all.
            chain: Only these; None for all.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        return read.states(read.request(self._netlink, self.hook, pref=pref, chain=chain))

    def dump_alike(self, *, pref: int = 0, chain: int | None = None) -> list[Alike]:
        """Return the same, those together that say the same but for their values: for thousands, many times faster.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        return alike(read.request(self._netlink, self.hook, pref=pref, chain=chain))

    def get_many(self, refs: Sequence[FilterRef]) -> list[FilterState | None]:
        """Return filters by their places; None for what is not there, or can't be read.

        For a few of many: a dump is faster where all of a pref are wanted.

        Equivalent to: ``tc filter get dev NIC ingress protocol P pref N handle H flower`` each.
        """
        found: list[FilterState | None] = [None] * len(refs)
        shapes: dict[tuple[str, int], list[int]] = {}
        for place, ref in enumerate(refs):
            shapes.setdefault((ref.kind, ref.protocol), []).append(place)
        for (kind, protocol), places in shapes.items():
            rows = Rows(
                columns=(),
                handles=np.array([refs[i].handle for i in places], np.uint32),
                prefs=np.array([refs[i].pref for i in places], np.uint32),
                chains=np.array([refs[i].chain for i in places], np.uint32),
            )
            for sent in send_rows(self._netlink, get_filter(kind, self.hook, protocol), rows):
                for row, reply in sent.replies.items():
                    if reply.kind == RTM_NEWTFILTER:
                        found[places[row]] = read.decode(reply.payload)
        return found

    def counters(self, *, pref: int = 0, chain: int | None = None, idle: bool = False) -> FilterColumns:
        """Return the counters of the filters in columns, in the kernel's order.

        Equivalent to: ``tc -s -br -j filter show dev NIC ingress``

        Args:
            pref: Only these; 0 for all.
            chain: Only these; None for all.
            idle: Ask for all that there is, and so also for the time of the last use and for classifiers other than
                flower; the kernel's answer is some five times as long.

        Raises:
            NicOffloadError: The kernel refuses, or (without `idle`) there are filters of other classifiers.
        """
        return columns(read.request(self._netlink, self.hook, pref=pref, chain=chain, terse=not idle))

    def _grouped(
        self, items: Sequence[TcFilter], kind: str, flags: int, outcomes: list[FilterOutcome]
    ) -> list[_Group]:
        """Return the filters by shape; what can't be written gets its outcome here."""
        groups: dict[object, _Group] = {}
        written = _Written()
        for place, item in enumerate(items):
            match, actions = item.match, item.actions
            eth_type, ip_proto, ip_frag = match.eth_type, match.ip_proto, match.ip_frag
            try:
                data, cookie = written.get(actions, with_id=item.rule_id is not None)
                if cookie is not None and item.handle < OUR_HANDLES:
                    raise _handle_of_others(item.handle)
                if match.tun_id is not None and (reason := flower.out_of_range(match)) is not None:
                    raise NotSupportedError(
                        "tc flower can't match this",
                        capability=flower.CAPABILITY,
                        reasons=[reason],
                        path=reason.path,
                    )
                # Equal shapes are nearly always one object, and hashing it would be the dearest part of this loop.
                key = (
                    id(match.shape),
                    eth_type.value if type(eth_type) is Masked else -1,
                    ip_proto.value if type(ip_proto) is Masked else -1,
                    ip_frag.value if type(ip_frag) is Masked else -1,
                    item.outer_tpid << 16 | item.inner_tpid,
                    id(item.placing),
                    item.hw_tc,
                    item.handle == 0,
                    len(data),
                    cookie,
                )
                group = groups.get(key)
                if group is None:
                    echo = 0 if item.handle else NLM_F_ECHO
                    group = groups[key] = _Group(self._template(item, kind, flags | echo, data, cookie))
            except NicOffloadError as error:
                error.device = self._device
                outcomes[place] = error
                continue
            group.places.append(place)
            group.which.append(group.actions.setdefault(data, len(group.actions)))
        return list(groups.values())

    def _template(
        self, item: TcFilter, kind: str, flags: int, actions: bytes, cookie: int | None
    ) -> Template:
        classifier = _CLASSIFIERS[kind]
        before = u32(classifier.flags, item.placing.value)
        if item.hw_tc is not None:
            before += u32(classifier.classid, 0xFFFF_FFE0 + item.hw_tc)
        return new_filter(
            kind,
            flags,
            self.hook,
            classifier.keys(item),
            before=before,
            actions_kind=classifier.act,
            actions=actions,
            cookie_in_actions=cookie,
        )


_NO_ANSWER = KernelError("the kernel did not answer")


def _with_handle(item: TcFilter, attempt: int) -> TcFilter:
    """Return a filter that has a rule id and no handle with one of ours; any other as it is."""
    if item.rule_id is None or item.handle:
        return item
    return dataclasses.replace(item, handle=our_handle(item.rule_id, attempt))


def _handle_of_others(handle: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"a filter with a rule id has a handle from {OUR_HANDLES:#x}, not {handle:#x}",
        path="/handle",
        hint="by its handle it is told from the filters of others that have a cookie",
    )


class _Written:
    """Actions as bytes, each list of them written once however many filters have it."""

    def __init__(self) -> None:
        self._by_value: dict[tuple[tuple[TcAction, ...], bool], tuple[bytes, int | None]] = {}
        self._by_identity: dict[tuple[int, bool], tuple[bytes, int | None]] = {}

    def get(self, actions: tuple[TcAction, ...], *, with_id: bool) -> tuple[bytes, int | None]:
        """Return the actions with zeros for the rule id, and where it goes; of tuples that live as long as this."""
        found = self._by_identity.get((id(actions), with_id))
        if found is not None:
            return found
        found = self._by_value.get((actions, with_id))
        if found is None:
            data = encode_actions(actions, _BLANK_ID if with_id else None)
            found = self._by_value[actions, with_id] = data, cookie_offset(actions) if with_id else None
        self._by_identity[id(actions), with_id] = found
        return found


def _rows(group: _Group, chosen: Sequence[TcFilter]) -> Rows:
    cookies = None
    if group.template.cookie_at is not None:
        joined = b"".join(item.rule_id.bytes for item in chosen if item.rule_id is not None)
        cookies = np.frombuffer(joined, np.uint8).reshape(-1, 16)
    actions = None
    if len(group.actions) > 1:
        kinds = np.frombuffer(b"".join(group.actions), np.uint8).reshape(len(group.actions), -1)
        actions = kinds[np.array(group.which, np.intp)]
    return Rows(
        columns=_value_columns(group.template, chosen),
        handles=np.array([item.handle for item in chosen], np.uint32),
        prefs=np.array([item.pref for item in chosen], np.uint32),
        chains=np.array([item.chain for item in chosen], np.uint32),
        actions=actions,
        cookies=cookies,
    )


def _value_columns(template: Template, chosen: Sequence[TcFilter]) -> list[npt.NDArray[np.generic]]:
    """Return the values that the template's slots take, one column a field of the shape."""
    widths = {slot.column: slot.width for slot in template.slots}
    found: list[npt.NDArray[np.generic]] = []
    for place, values in enumerate(zip(*(item.match.values for item in chosen), strict=True)):
        width = widths.get(place)
        if width is None:
            found.append(np.empty(1, np.uint8))  # its value is part of the template
        elif width == 16:
            joined = b"".join(value.to_bytes(16, "big") for value in values)
            found.append(np.frombuffer(joined, np.uint8).reshape(-1, 16))
        else:
            found.append(np.array(values, np.uint64))
    return found


def _ref(item: TcFilter, handle: int, protocol: int, kind: str) -> FilterRef:
    return FilterRef(pref=item.pref, handle=handle, chain=item.chain, protocol=protocol, kind=kind)
