"""What was built, kept under a hash of what it was built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEEP_UNUSED_S = 30 * 24 * 3600


class Cache:
    """A folder of finished things; building one twice at once, or half, can't happen.

    Args:
        root: The folder; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def entry(self, kind: str, inputs: Iterable[bytes | str], build: Callable[[Path], None]) -> Path:
        """Return the folder with what these inputs give, built now if it never was.

        Args:
            kind: What it is; the first part of the folder's name.
            inputs: All that decides the outcome: contents of files, versions, the text of the recipe.
            build: Fills the empty folder that it is given.

        Raises:
            Whatever `build` raises; nothing is kept then but `<kind>.log`, if it wrote one.
        """
        target = self.root / f"{kind}-{key(inputs)}"
        with self._lock(kind):
            for draft in self.root.glob(f".{kind}-*"):  # of a build that was killed: nobody else has the lock
                shutil.rmtree(draft)
            if not target.is_dir():
                self._build(target, build)
            os.utime(target)
            self._forget_unused(kind)
        return target

    def _build(self, target: Path, build: Callable[[Path], None]) -> None:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=self.root))
        try:
            draft.chmod(0o755)
            build(draft)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _forget_unused(self, kind: str) -> None:
        for old in self.root.glob(f"{kind}-*"):
            if time.time() - old.stat().st_mtime > _KEEP_UNUSED_S:
                shutil.rmtree(old)

    @contextmanager
    def _lock(self, kind: str) -> Iterator[None]:
        with (self.root / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def key(inputs: Iterable[bytes | str]) -> str:
    """Return a short name for these inputs, in this order."""
    digest = hashlib.sha256()
    for item in inputs:
        data = item.encode() if isinstance(item, str) else item
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def recipe(*modules: str) -> list[bytes]:
    """Return the source text of modules beside this one: how something is built is one of its inputs."""
    return [Path(__file__).with_name(f"{module}.py").read_bytes() for module in modules]
