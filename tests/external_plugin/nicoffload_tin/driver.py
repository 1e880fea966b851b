"""Finds and opens Tin Ones: ``tin:PATH``."""

from collections.abc import Sequence
from pathlib import Path

from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import InvalidRequestError
from nicoffload.model import Capability, DeviceInfo, Evidence, Support
from nicoffload_tin.device import Tin
from nicoffload_tin.flows import TinFlows
from nicoffload_tin.functions import MISSING, TinFunctions, TinRates

PREFIX = "tin:"


class TinFactory(DriverFactory):
    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        return []  # nobody knows where somebody keeps their tins

    def claims(self, name: str) -> bool:
        return name.startswith(PREFIX)

    def open(self, name: str, context: OpenContext) -> Driver:
        path = name.removeprefix(PREFIX)
        if not path:
            raise InvalidRequestError("names no file", device=name, hint="write tin:nic.json")
        return TinDriver(name, Path(path), context.profiles.get("tin_one"))


class TinDriver(Driver):
    def __init__(self, name: str, path: Path, profile) -> None:
        tin = Tin(path)
        self._path = path
        self._profile = profile
        self._info = DeviceInfo(
            name=name, family=profile.family, title=profile.title, plugin="tin", emulated=True
        )
        self.flow_filters = TinFlows(tin, profile, name)
        self.virtual_functions = TinFunctions(tin, name)
        self.rates = TinRates(tin, name)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def profile(self):
        return self._profile

    def identity(self) -> str:
        return f"tin:{self._path.resolve()}"

    def capabilities(self) -> Sequence[Capability]:
        has = {"flow_filters.steering": True, "vf.create": True, "vf.mac": True, "rates.max_tx": True}
        has |= {f"vf.{name}": False for name in MISSING}
        has |= {"rates.min_tx": False, "statistics.port": False, "statistics.vf": False}
        return [
            Capability(
                name=name,
                support=Support.YES if there else Support.NO,
                evidence=Evidence.DECLARED,
                source="device.py",
            )
            for name, there in has.items()
        ]

    def close(self) -> None:
        pass  # there is nothing to let go of
