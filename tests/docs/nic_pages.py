"""Writes docs/reference/nics.md and a page for each family, from the profiles that are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicoffload.profiles.types import FlowType, NicProfile, Table, VfFacts
from tests.docs import nic_words as words
from tests.docs.markdown import code, page, table

DECLARED = (
    "```{note}\nDeclared by profile; emulated, never run on hardware here. This page is made from the profiles by"
    " `make golden`.\n```"
)
INTRODUCTION = """\
What each family can do with its driver, as its profile says. A profile is read from the driver's source (that of
`sfn5122f` from the paper), and each fact on a family's page names where it was found. *unknown*: no source states
it, or only the device knows. {doc}`/adr/0002-a-nic-is-its-profile` says why it is so; {doc}`/howto/add-a-nic-profile`
how to add one."""
SETTINGS = {
    "mac": "MAC",
    "vlan": "port VLAN",
    "qos": "VLAN priority",
    "vlan_protocols": "VLAN protocols",
    "spoof_check": "spoof check",
    "trust": "trust",
    "link_state": "link state",
}


def overview(profiles: Sequence[NicProfile]) -> str:
    """Return the support matrix."""
    return page(
        "# NICs",
        INTRODUCTION,
        DECLARED,
        "```{toctree}\n:hidden:\n\n" + "\n".join(f"nics/{each.family}" for each in profiles) + "\n```",
        "## Families",
        table(
            ("family", "NICs", "driver", "VFs", "eswitch modes", "read from"),
            [
                (
                    link(each),
                    each.title,
                    each.driver,
                    words.vfs(each),
                    ", ".join(each.eswitch.modes) if each.eswitch else "none",
                    {"driver-source": "driver", "paper": "paper", "own-source": "own source"}[
                        each.provenance.kind
                    ],
                )
                for each in profiles
            ],
        ),
        "## Flow filters",
        "A rule goes into the first table of its NIC that takes it. *masks* is explained in"
        " {ref}`the schema <profile-mask-model>`; {doc}`rules` has the actions.",
        table(
            ("family", "table", "by", "rows", "masks", "packets go to", "other actions", "counts per rule"),
            [row for each in profiles for row in filter_rows(each)],
        ),
        "## Settings of a VF",
        table(
            ("family", *SETTINGS.values()),
            [
                (link(each), *(words.setting(getattr(each.vf, name)) for name in SETTINGS))
                if each.vf
                else (link(each), *["no VFs"] * len(SETTINGS))
                for each in profiles
            ],
        ),
        "## Transmit rates of a VF",
        table(
            ("family", "guarantee", "limit", "devlink rate objects"),
            [
                (
                    link(each),
                    words.rate(each.rates.min_tx),
                    words.rate(each.rates.max_tx),
                    ", ".join(each.rates.devlink.leaf) if each.rates.devlink else "no",
                )
                for each in profiles
            ],
        ),
        "## Statistics",
        table(
            ("family", "port", "VF", "representor"),
            [
                (
                    link(each),
                    words.counters(each.statistics.port),
                    words.counters(each.statistics.vf),
                    representor(each),
                )
                for each in profiles
            ],
        ),
    )


def link(profile: NicProfile) -> str:
    """Return a link to the page of a family."""
    return f"[{profile.family}](nics/{profile.family}.md)"


def filter_rows(profile: NicProfile) -> list[Sequence[str]]:
    """Return a row for each table of a family."""
    if not profile.tables:
        return [(link(profile), *["none"] * 7)]
    return [
        (
            link(profile),
            each.name,
            each.mechanism,
            words.number(each.rows),
            each.mask_model.replace("_", " "),
            words.targets(each),
            ", ".join(words.extras(each)),
            words.counters(each.counters),
        )
        for each in profile.tables
    ]


def representor(profile: NicProfile) -> str:
    """Return what the representors of a family count."""
    facts = profile.statistics.representor
    if facts is None:
        return "none"
    side = {"switch": "rx is what the VF sent", "vf": "rx is what the VF received"}[facts.direction]
    what = {"all": "all traffic", "slow_path": "only what software handled"}[facts.counts]
    return f"{what}; {side}"


def family(profile: NicProfile) -> str:
    """Return the page of a family."""
    return page(
        f"# {profile.family}",
        f"{profile.title}. Try it: `nicoffload capabilities mock:{profile.family}`.",
        DECLARED,
        profile.provenance.text,
        facts(profile),
        "## Filter tables",
        "" if profile.tables else "None: this family can't steer flows.",
        *(text for each in profile.tables for text in filters(each)),
        *settings(profile.vf),
        "## Rates and statistics",
        table(
            ("what", "how", "source"),
            [
                ("guarantee", words.rate(profile.rates.min_tx), profile.rates.min_tx.source),
                ("limit", words.rate(profile.rates.max_tx), profile.rates.max_tx.source),
                *(
                    (f"counters of {name}", words.counters(each), each.source)
                    for name, each in (("the port", profile.statistics.port), ("a VF", profile.statistics.vf))
                    if each
                ),
            ],
        ),
        "## What you would not expect",
        "*Inferred* marks what was deduced from the driver and is not stated by it.",
        "\n".join(
            f"- **{each.id.replace('_', ' ')}** ({each.about}{', inferred' if each.inferred else ''}): {each.text}"
            f"\n  *Source:* {each.source}"
            for each in profile.quirks
        ),
    )


def facts(profile: NicProfile) -> str:
    """Return the table at the head of a page."""
    sriov, eswitch = profile.sriov, profile.eswitch
    return table(
        ("what", "value", "source"),
        [
            ("kernel driver", profile.driver, ""),
            ("driver of its VFs", profile.vf_driver or "none", ""),
            ("PCI ids, PF", code(profile.pci_ids.pf), profile.pci_ids.source),
            ("PCI ids, VF", code(profile.pci_ids.vf), ""),
            *([("VFs", f"{words.vfs(profile)}. {sriov.note}".rstrip(" ."), sriov.source)] if sriov else []),
            *(
                [
                    (
                        "eswitch modes",
                        f"{', '.join(eswitch.modes)}. {eswitch.note}".rstrip(" ."),
                        eswitch.source,
                    )
                ]
                if eswitch
                else []
            ),
        ],
    )


def filters(each: Table) -> list[str]:
    """Return what is to be said of a table."""
    rows = [
        ("mechanism", each.mechanism),
        ("rows", f"{words.number(each.rows)}. {each.capacity_note}".rstrip(" .")),
        ("masks", each.mask_model.replace("_", " ")),
        ("priority", each.priority.replace("_", " ")),
        ("packets go to", words.targets(each)),
        ("other actions", ", ".join(words.extras(each))),
        ("counts per rule", words.counters(each.counters)),
        ("a second rule with the same match", each.duplicate.answer),
        ("needs", words.needs(each)),
        ("note", each.note),
        ("source", each.source),
    ]
    if each.hash:
        rows.insert(
            2, ("hash", f"a rule is refused with {each.hash.errno} after {each.hash.search_depth} probes")
        )
    return [
        f"### {each.name}",
        table(("what", "value"), [row for row in rows if row[1]]),
        table(
            ("flow type", "is", "may compare"),
            [(kind.name, fixed(kind), compared(kind)) for kind in each.flow_types],
        ),
        shapes(each),
        errors(each.errors),
    ]


def fixed(kind: FlowType) -> str:
    """Return what every rule of a flow type matches."""
    return ", ".join(words.values(name, allowed) for name, allowed in kind.fixed.items()) or "anything"


def compared(kind: FlowType) -> str:
    """Return the fields that a rule of a flow type may compare, by what masks they take."""
    groups: dict[str, list[str]] = {}
    for name, rule in kind.fields.items():
        groups.setdefault(words.MASKS[rule.mask], []).append(words.field(name))
    return "; ".join(f"{code(names)}: {mask}" for mask, names in groups.items()) or "nothing more"


def shapes(each: Table) -> str:
    """Return the combinations of fields that a table takes."""
    if not each.shapes:
        return ""
    rows = [
        (
            shape.name,
            ", ".join(sorted(shape.flow_types)),
            code(sorted(words.field(name) for name in shape.fields)),
        )
        for shape in each.shapes
    ]
    return table(("combination", "flow types", "compares exactly"), rows)


def errors(answers: Mapping[str, str | None]) -> str:
    """Return what the driver answers when it refuses."""
    rows = [
        (name.replace("_", " "), answer or "none: it is accepted without a word")
        for name, answer in answers.items()
    ]
    return "What the driver answers ({ref}`conditions <profile-table-errors>`):\n\n" + table(
        ("condition", "errno"), rows
    )


def settings(vf: VfFacts | None) -> list[str]:
    """Return what can be set on a VF."""
    if vf is None:
        return []
    rows = []
    for name, title in SETTINGS.items():
        each = getattr(vf, name)
        refusal = f" ({each.errno})" if each.errno else ""
        rows.append((title, words.setting(each) + refusal, each.note, each.source))
    return ["## Settings of a VF", table(("setting", "can be set", "note", "source"), rows)]
