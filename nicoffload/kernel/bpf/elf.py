"""The part of ELF that an eBPF object needs: programs, the maps that they name, and where they name them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_MAP = struct.Struct("<IIIII")
_MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little-endian."""
_MACHINE_BPF = 247
_SYMBOL_TABLE, _RELOCATIONS = 2, 9
_LOAD_64 = 0x18
"""Opcode of the instruction that loads a 64-bit constant, of two slots."""
_LOADS_MAP = 1
_R_BPF_64_64 = 1
_INSTRUCTION_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MapShape:
    """A map that a program names.

    Args:
        kind: ``BPF_MAP_TYPE_*``.
        key_bytes: Length of a key.
        value_bytes: Length of a value.
        max_entries: How many it holds; 0 where that is only known when it is made.
        flags: ``BPF_F_*``.
    """

    kind: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFile:
    """An eBPF object.

    Args:
        maps: The maps by name.
        code: Section name to instructions.
        places: Section name to where a map's descriptor belongs: offset of the instruction, name of the map.
        licence: What it says of its licence.
    """

    maps: Mapping[str, MapShape]
    code: Mapping[str, bytes]
    places: Mapping[str, tuple[tuple[int, str], ...]]
    licence: str

    def program(self, section: str, descriptors: Mapping[str, int]) -> bytes:
        """Return the instructions of a program with the descriptors of its maps filled in."""
        code = bytearray(self.code[section])
        for offset, name in self.places[section]:
            code[offset + 1] = code[offset + 1] & 0x0F | _LOADS_MAP << 4
            struct.pack_into("<i", code, offset + 4, descriptors[name])
        return bytes(code)


def read_object(data: bytes) -> ObjectFile:
    """Return what an object file holds.

    Args:
        data: ELF, 64 bits, little-endian, for eBPF. Its maps are in a section ``maps``, its programs in sections whose
            names begin with ``tc/``.

    Raises:
        InvalidRequestError: It is none, or it needs a relocation that is no map's.
    """
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError, KeyError, OverflowError, StopIteration) as cause:
        raise InvalidRequestError(f"this is no eBPF object that can be loaded: {cause}") from cause


def _read(data: bytes) -> ObjectFile:
    head = _HEADER.unpack_from(data)
    if not head[0].startswith(_MAGIC) or head[2] != _MACHINE_BPF:
        raise ValueError("not an ELF file for eBPF, 64 bits, little-endian")
    sections_at, section_bytes, count, names_in = head[6], head[11], head[12], head[13]
    sections = [_SECTION.unpack_from(data, sections_at + at * section_bytes) for at in range(count)]
    names = [_text(data, sections[names_in][4] + section[0]) for section in sections]
    symbols = _symbols(data, sections)
    maps_in = names.index("maps")
    maps_at = sections[maps_in][4]
    maps = {
        name: MapShape(
            **dict(
                zip(
                    ("kind", "key_bytes", "value_bytes", "max_entries", "flags"),
                    _MAP.unpack_from(data, maps_at + value),
                    strict=True,
                )
            )
        )
        for name, section, value in symbols
        if section == maps_in and name
    }
    code = {
        name: data[section[4] : section[4] + section[5]]
        for name, section in zip(names, sections, strict=True)
        if name.startswith("tc/")
    }
    places: dict[str, tuple[tuple[int, str], ...]] = dict.fromkeys(code, ())
    for section in sections:
        if section[1] == _RELOCATIONS and names[section[7]] in code:
            of = names[section[7]]
            places[of] = tuple(
                _place(data, section[4] + at, symbols, maps, code[of]) for at in _steps(section)
            )
    licence = sections[names.index("license")]
    return ObjectFile(maps=maps, code=code, places=places, licence=_text(data, licence[4]))


def _symbols(data: bytes, sections: list[tuple[int, ...]]) -> list[tuple[str, int, int]]:
    """Return name, section and value of each symbol."""
    table = next(section for section in sections if section[1] == _SYMBOL_TABLE)
    texts_at = sections[table[6]][4]
    found = (_SYMBOL.unpack_from(data, at) for at in range(table[4], table[4] + table[5], _SYMBOL.size))
    return [(_text(data, texts_at + name), section, value) for name, _, _, section, value, _ in found]


def _steps(section: tuple[int, ...]) -> range:
    return range(0, section[5], _RELOCATION.size)


def _place(
    data: bytes, at: int, symbols: list[tuple[str, int, int]], maps: Mapping[str, MapShape], code: bytes
) -> tuple[int, str]:
    offset, what = _RELOCATION.unpack_from(data, at)
    name = symbols[what >> 32][0]
    if what & 0xFFFF_FFFF != _R_BPF_64_64 or name not in maps:
        raise ValueError(f"a relocation to {name!r}, which is no map")
    if offset % _INSTRUCTION_BYTES or code[offset] != _LOAD_64:
        raise ValueError(f"a relocation at {offset}, where no constant is loaded")
    return offset, name


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
