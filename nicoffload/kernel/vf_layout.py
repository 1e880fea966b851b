"""Settings of virtual functions as rtnetlink lays them out, in both directions, and as words for `ip`."""

from __future__ import annotations

import enum
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import Buffer, MalformedError, attribute, fields, number, parse, walk
from nicoffload.model import CounterFacts, LinkState, RateLimit, TrafficStats, VfConfig, VlanTag, format_mac

_VF_INFO = 1
_MAC = 1
_VLAN = 2
_SPOOF_CHECK = 4
_LINK_STATE = 5
_RATE = 6
_RSS_QUERY = 7
_STATS = 8
_TRUST = 9
_VLAN_LIST = 12
_VLAN_INFO = 1

VFINFO_LIST = 22

_TWO = struct.Struct("=II")
_THREE = struct.Struct("=III")
_VLAN_OF_LIST = struct.Struct(
    "=IIIH2x"
)  # pyroute2 leaves the padding out, and the kernel refuses the message
_MAC_FORM = struct.Struct("=I6s26x")
_NOT_REPORTED = 0xFFFF_FFFF
_BPS_PER_MBPS = 1_000_000

# Numbers of the protocols as they lie in memory in network order.
_PROTOCOLS: Mapping[str, int] = MappingProxyType(
    {
        name: struct.unpack("=H", struct.pack(">H", value))[0]
        for name, value in (("802.1Q", 0x8100), ("802.1ad", 0x88A8))
    }
)
_PROTOCOL_NAMES: Mapping[int, str] = MappingProxyType({value: name for name, value in _PROTOCOLS.items()})
_LINK_STATES = (LinkState.AUTO, LinkState.ENABLE, LinkState.DISABLE)
_COUNTERS = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "", "", "", "rx_dropped", "tx_dropped")


class VfSetting(enum.Enum):
    """One setting of a VF: the kernel takes or refuses each by itself."""

    MAC = "mac"
    VLAN = "vlan"
    RATE = "rate"
    SPOOF_CHECK = "spoof_check"
    LINK_STATE = "link_state"
    TRUST = "trust"
    RSS_QUERY = "rss_query"


@dataclass(frozen=True, slots=True, kw_only=True)
class VfRequest:
    """Settings to make on one VF; None leaves one as it is.

    Args:
        config: The VF, and what the model has words for.
        rate: Rates, whole Mbit/s; the kernel takes both at once, so what is None in it is taken away.
        rss_query: Whether the VF may ask for the RSS table and hash key.

    Raises:
        InvalidRequestError: A rate is not a whole number of Mbit/s.
    """

    config: VfConfig
    rate: RateLimit | None = None
    rss_query: bool | None = None

    def __post_init__(self) -> None:
        for name in ("min_tx_bps", "max_tx_bps"):
            value = getattr(self.rate, name) if self.rate else None
            if value and value % _BPS_PER_MBPS:
                below = value - value % _BPS_PER_MBPS
                near = f"{below} or {below + _BPS_PER_MBPS}" if below else str(_BPS_PER_MBPS)
                raise InvalidRequestError(
                    f"{value} bit/s is no whole number of Mbit/s, which is all that Linux can say of a VF",
                    path=f"/{name}",
                    hint=f"ask for {near}",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class VfReport:
    """What the kernel reports of one VF; None where it reports nothing.

    Args:
        vf: Index.
        mac: Administered address; 0 for none.
        vlan: Port VLAN; id 0 and priority 0 for none.
        min_tx_bps: Guaranteed rate; 0 for none. Linux says 0 too where a driver has no such thing.
        max_tx_bps: Limit; 0 for none, or where a driver has no such thing.
        spoof_check: Whether spoofed frames are dropped.
        trust: Whether the VF is trusted.
        link_state: What the VF sees of the link. Linux says `AUTO` too where a driver has no such thing.
        rss_query: Whether the VF may ask for the RSS table and hash key.
    """

    vf: int
    mac: int | None = None
    vlan: VlanTag | None = None
    min_tx_bps: int | None = None
    max_tx_bps: int | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: LinkState | None = None
    rss_query: bool | None = None


def encode_settings(request: VfRequest) -> tuple[tuple[VfSetting, bytes], ...]:
    """Return each setting that a request names, as the list of one VF that a message carries."""
    config, vf = request.config, request.config.vf
    found: list[tuple[VfSetting, bytes]] = []

    def put(setting: VfSetting, kind: int, payload: bytes) -> None:
        found.append((setting, attribute(VFINFO_LIST, attribute(_VF_INFO, attribute(kind, payload)))))

    if config.mac is not None:
        put(VfSetting.MAC, _MAC, _MAC_FORM.pack(vf, config.mac.to_bytes(6, "big")))
    if config.vlan is not None:
        put(VfSetting.VLAN, *_vlan(vf, config.vlan))
    if request.rate is not None:
        rates = (_mbps(request.rate.min_tx_bps), _mbps(request.rate.max_tx_bps))
        put(VfSetting.RATE, _RATE, _THREE.pack(vf, *rates))
    if config.spoof_check is not None:
        put(VfSetting.SPOOF_CHECK, _SPOOF_CHECK, _TWO.pack(vf, config.spoof_check))
    if config.link_state is not None:
        put(VfSetting.LINK_STATE, _LINK_STATE, _TWO.pack(vf, _LINK_STATES.index(config.link_state)))
    if request.rss_query is not None:
        put(VfSetting.RSS_QUERY, _RSS_QUERY, _TWO.pack(vf, request.rss_query))
    if config.trust is not None:
        put(VfSetting.TRUST, _TRUST, _TWO.pack(vf, config.trust))
    return tuple(found)


def _vlan(vf: int, tag: VlanTag) -> tuple[int, bytes]:
    if tag.protocol == "802.1Q":
        return _VLAN, _THREE.pack(vf, tag.vid, tag.pcp)
    form = _VLAN_OF_LIST.pack(vf, tag.vid, tag.pcp, _PROTOCOLS[tag.protocol])
    return _VLAN_LIST, attribute(_VLAN_INFO, form)


def _mbps(rate_bps: int | None) -> int:
    return (rate_bps or 0) // _BPS_PER_MBPS


def decode_reports(vfinfo_list: Buffer) -> list[VfReport]:
    """Return the VFs that a link's list holds, in its order.

    Raises:
        MalformedError: The list breaks its format, or says what can't be.
    """
    return [_report(found) for found in _infos(vfinfo_list)]


def decode_traffic(vfinfo_list: Buffer, facts: CounterFacts | None) -> list[TrafficStats]:
    """Return the counters of the VFs that a link's list holds, in its order.

    Args:
        vfinfo_list: Payload of the attribute.
        facts: How the driver counts; None where it counts nothing, since Linux says 0 then.

    Raises:
        MalformedError: The list breaks its format.
    """
    return [_traffic(found, facts) for found in _infos(vfinfo_list)]


def _infos(vfinfo_list: Buffer) -> list[dict[int, Buffer]]:
    return [parse(vfinfo_list, start, end) for kind, start, end in walk(vfinfo_list) if kind == _VF_INFO]


def _report(found: dict[int, Buffer]) -> VfReport:
    vf = _index(found)
    try:
        vlan = _read_vlan(found)
    except InvalidRequestError as cause:
        raise MalformedError(f"VF {vf}: {cause}") from cause
    rate = fields(_THREE, found[_RATE]) if _RATE in found else None
    return VfReport(
        vf=vf,
        mac=int.from_bytes(_MAC_FORM.unpack_from(_long(found[_MAC]))[1], "big"),
        vlan=vlan,
        min_tx_bps=None if rate is None else rate[1] * _BPS_PER_MBPS,
        max_tx_bps=None if rate is None else rate[2] * _BPS_PER_MBPS,
        spoof_check=_switch(found, _SPOOF_CHECK),
        trust=_switch(found, _TRUST),
        link_state=_read_link_state(found),
        rss_query=_switch(found, _RSS_QUERY),
    )


def _index(found: dict[int, Buffer]) -> int:
    if _MAC not in found:
        raise MalformedError("a VF without its index")
    return number(found[_MAC], 4)


def _long(payload: Buffer) -> Buffer:
    if len(payload) < _MAC_FORM.size:
        raise MalformedError(f"an address has {len(payload)} of {_MAC_FORM.size} bytes")
    return payload


def _switch(found: dict[int, Buffer], kind: int) -> bool | None:
    if kind not in found:
        return None
    value = fields(_TWO, found[kind])[1]
    return None if value == _NOT_REPORTED else bool(value)


def _read_link_state(found: dict[int, Buffer]) -> LinkState | None:
    if _LINK_STATE not in found:
        return None
    value = fields(_TWO, found[_LINK_STATE])[1]
    if value >= len(_LINK_STATES):
        raise MalformedError(f"{value} is no link state")
    return _LINK_STATES[value]


def _read_vlan(found: dict[int, Buffer]) -> VlanTag | None:
    entries = parse(found[_VLAN_LIST]) if _VLAN_LIST in found else {}
    if _VLAN_INFO in entries:
        _, vid, pcp, protocol = fields(_VLAN_OF_LIST, entries[_VLAN_INFO])
        if not (vid or pcp or protocol):  # netdevsim, before anybody set a VLAN
            return VlanTag(vid=0)
        if protocol not in _PROTOCOL_NAMES:
            raise MalformedError(f"{protocol:#x} is no VLAN protocol")
        return VlanTag(vid=vid, pcp=pcp, protocol=_PROTOCOL_NAMES[protocol])
    if _VLAN in found:
        _, vid, pcp = fields(_THREE, found[_VLAN])
        return VlanTag(vid=vid, pcp=pcp)
    return None


def _traffic(found: dict[int, Buffer], facts: CounterFacts | None) -> TrafficStats:
    values: dict[str, int | None] = {name: None for name in _COUNTERS if name}
    if facts is not None and _STATS in found:
        for kind, payload in parse(found[_STATS]).items():
            if kind < len(_COUNTERS) and _COUNTERS[kind]:
                values[_COUNTERS[kind]] = number(payload, 8)
    return TrafficStats(
        name=f"vf:{_index(found)}",
        rx_packets=values["rx_packets"],
        tx_packets=values["tx_packets"],
        rx_bytes=values["rx_bytes"],
        tx_bytes=values["tx_bytes"],
        rx_dropped=values["rx_dropped"],
        tx_dropped=values["tx_dropped"],
        facts=facts,
    )


def set_commands(device: str, request: VfRequest) -> list[str]:
    """Return the `ip` commands that make the same settings, one each.

    Args:
        device: Name of the PF's network device.
        request: The settings.
    """
    config = request.config
    words: list[list[str]] = []
    if config.mac is not None:
        words.append(["mac", format_mac(config.mac)])
    if config.vlan is not None:
        vlan = ["vlan", str(config.vlan.vid), "qos", str(config.vlan.pcp)]
        words.append(vlan + (["proto", "802.1ad"] if config.vlan.protocol == "802.1ad" else []))
    if request.rate is not None:
        low, high = _mbps(request.rate.min_tx_bps), _mbps(request.rate.max_tx_bps)
        words.append(["min_tx_rate", str(low), "max_tx_rate", str(high)])
    if config.spoof_check is not None:
        words.append(["spoofchk", _on(config.spoof_check)])
    if config.link_state is not None:
        words.append(["state", config.link_state.value])
    if request.rss_query is not None:
        words.append(["query_rss", _on(request.rss_query)])
    if config.trust is not None:
        words.append(["trust", _on(config.trust)])
    start = ["ip", "link", "set", "dev", device, "vf", str(config.vf)]
    return [shlex.join(start + setting) for setting in words]


def _on(value: bool) -> str:  # noqa: FBT001  (one word for one value)
    return "on" if value else "off"
