"""Whatever is done to a profile document, it is taken or refused with a ProfileError: nothing else comes out."""

from __future__ import annotations

import contextlib
import copy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload.errors import ProfileError
from nicoffload.profiles import parse_profile

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**130), 2**130),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["EINVAL", "EFULL", "vf", "exact", "caller", "shapes", "link", "tcp4", "eth_dst", "switchdev"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.just("mask"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(part, path=()):
    """Return the paths to all parts of a document."""
    yield path
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def at(document, path):
    for step in path:
        document = document[step]
    return document


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_document_raises_nothing_but_a_profile_error(documents, data):
    document = copy.deepcopy(documents[data.draw(st.sampled_from(sorted(documents)))])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([place for place in places(document) if place]))
        parent, key = at(document, path[:-1]), path[-1]
        match data.draw(st.sampled_from(["replace", "remove", "twice", "rename", "graft"])):
            case "replace":
                parent[key] = data.draw(VALUES)
            case "remove":
                del parent[key]
            case "twice" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case "rename" if isinstance(parent, dict):
                parent[data.draw(st.text(max_size=6) | st.sampled_from(["errno", "values", "vf"]))] = (
                    parent.pop(key)
                )
            case _:
                parent[key] = copy.deepcopy(at(document, data.draw(st.sampled_from(list(places(document))))))
    with contextlib.suppress(ProfileError):
        parse_profile(document, "mutated.json")
