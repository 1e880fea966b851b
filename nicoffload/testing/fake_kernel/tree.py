"""A tree of folders, files and links like sysfs: found by path, with the errnos of Linux."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nicoffload.testing.fake_kernel.errnos import refusal

_MOST_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder.

    Args:
        entries: Returns what is in it at present.
        lookup: Returns what is there under a name, or None, where that is quicker than to make all entries.
    """

    entries: Callable[[], Mapping[str, Node]]
    lookup: Callable[[str], Node | None] | None = None

    def get(self, name: str) -> Node | None:
        """Return what is there under a name; None for nothing."""
        return self.entries().get(name) if self.lookup is None else self.lookup(name)


@dataclass(frozen=True, slots=True)
class File:
    """An attribute.

    Args:
        read: Returns its text without the final line feed, or raises OSError; None: it can't be read.
        write: Takes what was written, or raises OSError; None: it can't be written.
    """

    read: Callable[[], str] | None = None
    write: Callable[[bytes], None] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link.

    Args:
        target: Where it points, relative to the folder that it is in.
    """

    target: str


Node = Folder | File | Link


def fixed(text: str) -> File:
    """Return a file that always says the same."""
    return File(read=lambda: text)


def find(root: Folder, path: str, *, follow: bool = True) -> Node:
    """Return what is at a path.

    Args:
        root: Where the path begins.
        path: Relative, without ``..``; links on the way are followed.
        follow: Whether a link at its end is followed too.

    Raises:
        OSError: ENOENT: there is nothing; ENOTDIR: a part of the way is a file; ELOOP: links go round.
    """
    place: list[tuple[str, Folder]] = []
    parts = [part for part in path.split("/") if part not in {"", "."}][::-1]
    links = 0
    node: Node = root
    while parts:
        here = place[-1][1] if place else root
        part = parts.pop()
        if part == "..":
            if place:
                place.pop()
            node = place[-1][1] if place else root
            continue
        found = here.get(part)
        if found is None:
            raise refusal(errno.ENOENT)
        if isinstance(found, Link):
            if not parts and not follow:
                return found
            links += 1
            if links > _MOST_LINKS:
                raise refusal(errno.ELOOP)
            parts += [step for step in found.target.split("/") if step not in {"", "."}][::-1]
            continue
        if isinstance(found, File):
            if parts:
                raise refusal(errno.ENOTDIR)
            return found
        place.append((part, found))
        node = found
    return node


def read(node: Node) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: EISDIR: it is a folder; EACCES: it can't be read, not even by root; or as the driver refuses.
    """
    if not isinstance(node, File):
        raise refusal(errno.EISDIR)
    if node.read is None:
        raise refusal(errno.EACCES)
    return f"{node.read()}\n".encode()


def write(node: Node, data: bytes) -> None:
    """Write a file.

    Raises:
        OSError: EISDIR: it is a folder; EACCES: it can't be written, not even by root; or as the driver refuses.
    """
    if not isinstance(node, File):
        raise refusal(errno.EISDIR)
    if node.write is None:
        raise refusal(errno.EACCES)
    if data:  # nothing is done for nothing (fs/sysfs/file.c, sysfs_kf_write)
        node.write(data)


def names(node: Node) -> list[str]:
    """Return the names in a folder, sorted.

    Raises:
        OSError: ENOTDIR: it is no folder.
    """
    if not isinstance(node, Folder):
        raise refusal(errno.ENOTDIR)
    return sorted(node.entries())
