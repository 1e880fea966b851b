"""The driver contract on a live Linux NIC: facets over `nicoffload.kernel`, driven by the NIC's profile."""

from nicoffload.linux.driver import LinuxDriver, compose, mechanisms
from nicoffload.linux.flower import FlowerTables
from nicoffload.linux.flows import LinuxFlows
from nicoffload.linux.functions import LinuxFunctions
from nicoffload.linux.makers import PciMaker, VfMaker
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.nic import LinuxNic, Place, Ports
from nicoffload.linux.ntuple import NtupleTables
from nicoffload.linux.rates import LinuxRates
from nicoffload.linux.statistics import LinuxStatistics

__all__ = [
    "FlowerTables",
    "LinuxDriver",
    "LinuxFlows",
    "LinuxFunctions",
    "LinuxNic",
    "LinuxRates",
    "LinuxStatistics",
    "Mechanism",
    "NtupleTables",
    "PciMaker",
    "Place",
    "Ports",
    "VfMaker",
    "compose",
    "mechanisms",
]
