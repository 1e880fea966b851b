"""How the emulated driver says no."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):  # noqa: N818 - it is an answer of the emulated kernel, not an error of this package
    """A request that the emulated driver answers with an errno.

    Args:
        errno: Its symbolic name.
        condition: Which condition of the profile it is, such as ``full``; empty for a fault of a script.
        text: What a kernel log would say.
        path: JSON pointer to the part of the request it is about.
    """

    def __init__(self, errno: str, condition: str, text: str, path: str = "") -> None:
        super().__init__(text)
        self.errno = errno
        self.condition = condition
        self.text = text
        self.path = path


def refuse(
    errors: Mapping[str, str | None],
    condition: str,
    text: str,
    *,
    default: str = "EINVAL",
    path: str = "",
    errno: str | None = None,
) -> None:
    """Raise what a profile says of a condition; return where it says that the driver accepts it without a word.

    Args:
        errors: The profile's conditions.
        condition: The one that holds.
        text: What a kernel log would say.
        default: The errno where the profile is silent.
        path: JSON pointer to the part of the request.
        errno: A nearer answer, of one field for instance, which goes before that of `errors`.
    """
    answer = errno or errors.get(condition, default)
    if answer is not None:
        raise Refused(answer, condition, text, path)
