"""The Tin One itself: sixteen rows, four VFs, and the errnos that it answers with. It lives in a file."""

import errno
import json
import os
from pathlib import Path

ROWS = 16
MAX_VFS = 4
RATE_STEP_BPS = 1_000_000
LINK_BPS = 10_000_000_000
DRIVERS = ("", "tinvf", "vfio-pci")


class Tin:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict:
        """Return rows (by number: address, port, VF or None for drop) and VFs."""
        if not self._path.exists():
            return {"rows": {}, "vfs": []}
        return json.loads(self._path.read_text("utf-8"))

    def put(self, row: int, address: int, port: int, vf: int | None) -> None:
        state = self.read()
        if not 0 <= row < ROWS:
            raise OSError(errno.ENOSPC, f"there are {ROWS} rows")
        if str(row) in state["rows"]:
            raise OSError(errno.EBUSY, f"row {row} is taken")
        if any(there[:2] == [address, port] for there in state["rows"].values()):
            raise OSError(errno.EEXIST, "a row has this address and port")
        if vf is not None and vf >= len(state["vfs"]):
            raise OSError(errno.ENOENT, f"there is no VF {vf}")
        state["rows"][str(row)] = [address, port, vf]
        self._write(state)

    def clear(self, row: int) -> None:
        state = self.read()
        if state["rows"].pop(str(row), None) is None:
            raise OSError(errno.ENOENT, f"row {row} is empty")
        self._write(state)

    def set_count(self, count: int) -> None:
        state = self.read()
        state["vfs"] = [{"mac": 0, "rate_bps": None, "driver": "tinvf"} for _ in range(count)]
        self._write(state)

    def set_mac(self, vf: int, mac: int) -> None:
        self._change(vf, "mac", mac)

    def set_rate(self, vf: int, bps: int | None) -> None:
        if bps is not None and bps > LINK_BPS:
            raise OSError(errno.EINVAL, f"the link does {LINK_BPS} bit/s")
        self._change(vf, "rate_bps", bps and max(bps // RATE_STEP_BPS, 1) * RATE_STEP_BPS)

    def bind(self, vf: int, driver: str) -> None:
        if driver not in DRIVERS:
            raise OSError(errno.ENOENT, f"no driver {driver!r}")
        self._change(vf, "driver", driver)

    def _change(self, vf: int, name: str, value: object) -> None:
        state = self.read()
        if vf >= len(state["vfs"]):
            raise OSError(errno.ENOENT, f"there is no VF {vf}")
        state["vfs"][vf][name] = value
        self._write(state)

    def _write(self, state: dict) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(state), "utf-8")
        fresh.replace(self._path)  # whoever dies here leaves the old NIC or the new one
