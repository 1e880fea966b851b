"""Reads NIC profiles: JSON document, schema, contradictions, value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from nicoffload.codec.documents import load_json
from nicoffload.codec.near import did_you_mean
from nicoffload.errors import NotFoundError, ProfileError
from nicoffload.profiles._build import build_profile
from nicoffload.profiles._check import find_contradictions
from nicoffload.profiles.types import NicProfile
from nicoffload.schema import Fault, raise_faults, validate

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def parse_profile(document: Mapping[str, Any], source: str = "") -> NicProfile:
    """Make a profile of its document.

    Args:
        document: The JSON values; the profile keeps them, so they are not to be changed afterwards.
        source: Where they come from, for messages.

    Raises:
        ProfileError: The document breaks the schema or contradicts itself; every fault is listed.
    """
    validate(document, "nic-profile", error=ProfileError, source=source)
    raise_faults(find_contradictions(document), error=ProfileError, source=source)
    return build_profile(document)


def load_profile(path: Traversable | Path) -> NicProfile:
    """Read a profile from a JSON file that is named after its family.

    Raises:
        ProfileError: The file can't be read, is no JSON, breaks the schema, contradicts itself or has another name.
    """
    name = path.name
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as cause:
        raise ProfileError(f"{name}: can't be read: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise ProfileError(f"{name}: is not UTF-8 text: {cause.reason} at byte {cause.start}") from cause
    profile = parse_profile(load_json(text, name, error=ProfileError), name)
    stem = PurePosixPath(name).stem
    if profile.family != stem:
        raise ProfileError(
            f"{name}: the family is {profile.family!r}, the file is named after {stem!r}",
            path="/family",
            hint=f"name the file {profile.family}.json",
        )
    return profile


def check_families(profiles: Sequence[NicProfile]) -> None:
    """Check that no two families of one vendor claim the same NIC.

    Raises:
        ProfileError: A PF's PCI id is in two of them.
    """
    owners: dict[tuple[str, str], str] = {}
    faults = []
    for profile in profiles:
        for key in ("pf", "without_offload"):
            for place, pci_id in enumerate(getattr(profile.pci_ids, key)):
                owner = owners.setdefault((profile.vendor, pci_id), profile.family)
                if owner != profile.family:
                    message = f"{pci_id} of {profile.family} is also in {owner}"
                    faults.append(Fault(path=f"/pci_ids/{key}/{place}", message=message))
    raise_faults(faults, error=ProfileError)


class Catalog:
    """Profiles by family, each read when it is first asked for.

    Args:
        paths: JSON files, each named after its family.
    """

    def __init__(self, paths: Iterable[Traversable | Path]) -> None:
        self._paths = {PurePosixPath(path.name).stem: path for path in paths}
        self._read: dict[str, NicProfile] = {}

    def families(self) -> Sequence[str]:
        """Return the names of all families, sorted."""
        return sorted(self._paths)

    def get(self, family: str) -> NicProfile:
        """Return the profile of a family.

        Raises:
            NotFoundError: There is none.
            ProfileError: Its file is broken.
        """
        if family not in self._read:
            if family not in self._paths:
                self._raise_unknown(family)
            self._read[family] = load_profile(self._paths[family])
        return self._read[family]

    def _raise_unknown(self, family: str) -> NoReturn:
        known = ", ".join(self.families())
        hint = did_you_mean(family, self._paths) or (
            f"installed: {known}" if known else "no plugin brings profiles"
        )
        raise NotFoundError(f"no NIC profile is called {family!r}", hint=hint)
