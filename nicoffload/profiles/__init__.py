"""NIC profiles: one document per NIC family that says what it can do and how it fails."""

from __future__ import annotations

from nicoffload.profiles.load import Catalog, check_families, load_profile, parse_profile
from nicoffload.profiles.types import NicProfile, Table

__all__ = ["Catalog", "NicProfile", "Table", "check_families", "load_profile", "parse_profile"]
