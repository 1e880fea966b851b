"""The kit's own machinery: catalogue, reports, expected failures, and that it leaves a NIC as it was."""

from __future__ import annotations

import json

import pytest

from nicoffload import load_registry, open_nic
from nicoffload.errors import ConflictError, InvalidRequestError
from nicoffload.model import FlowRule, Match, RateLimit, ToVf, VfConfig
from nicoffload.schema import find_faults
from nicoffload.testing.conformance import (
    CATALOGUE,
    GROUPS,
    CaseResult,
    Ground,
    NicUnderTest,
    Verdict,
    load_expected_failures,
    run,
    select,
)
from nicoffload.testing.conformance.behaviour import behaviour, whole
from nicoffload.testing.conformance.expected import judged
from nicoffload.testing.conformance.report import lines

REGISTRY = load_registry()


def under_test(name, **keywords):
    keywords.setdefault("disposable", True)
    return NicUnderTest(
        name=name, open_driver=lambda: REGISTRY.open(name), sleep_s=lambda seconds: None, **keywords
    )


def test_numbers_are_unique_and_behaviours_say_what_they_try():
    numbers = [each.number for each in CATALOGUE]
    assert len(set(numbers)) == len(numbers) >= 90
    for each in CATALOGUE:
        assert each.group in GROUPS
        assert each.title[0].isupper()
        assert not each.title.endswith(".")
        assert len(each.text) > 40, each.number


def test_numbers_stay(golden):
    """A number is a name for ever: a behaviour that goes leaves a gap, and a new one gets a new number."""
    golden.check_text("data/numbers.txt", "".join(f"{each.number} {each.title}\n" for each in CATALOGUE))


def test_behaviours_are_chosen_by_number_and_group():
    assert [each.number for each in select(["fl-05", "ER"])] == ["FL-05", "ER-01"]
    assert select([]) == CATALOGUE
    with pytest.raises(InvalidRequestError, match="is no behaviour"):
        select(["FL-99"])


def test_a_report_keeps_to_its_schema_and_says_where_it_was_made():
    report = run(under_test("mock:sfc_siena"), select(["VF", "RT"]))
    document = report.to_json()
    assert find_faults(document, "conformance-report") == ()
    assert json.loads(json.dumps(document)) == document
    assert document["ground"] == "emulator"
    assert document["kernel"] == ""
    assert "no kernel and no hardware took part" in lines(report)[-1]


@pytest.mark.parametrize("ground", [Ground.SOFTWARE, Ground.EMULATED_DEVICE, Ground.HARDWARE])
def test_only_hardware_is_called_hardware(ground):
    report = run(under_test("mock:ixgbe", ground=ground), select(["DR-01"]))
    assert report.to_json()["ground"] == ground.value
    assert report.kernel
    said = lines(report)[-1]
    assert (said.partition("; ")[2].startswith("on hardware")) == (ground is Ground.HARDWARE)


@behaviour("FL-98", "Something breaks", each=whole)
def breaks(bench):
    """This behaviour makes a rule and VFs, and then something is wrong with the plugin."""
    bench.retry.call(lambda: bench.vfs.set_count(2))
    bench.install(bench.some(bench.table("fdir"), 3))
    bench.rates.set_many({0: RateLimit(max_tx_bps=100_000_000)})
    raise ZeroDivisionError("a bug of the plugin")


def test_a_nic_that_is_not_the_kits_own_is_as_before_even_after_a_failure(tmp_path):
    name = f"mock:ixgbe,vfs=4,state={tmp_path / 'nic.json'}"
    match = Match.of(ipv4_src="10.9.9.8", ipv4_dst="10.9.9.9", ip_proto=6, tp_src=8, tp_dst=9)
    rule = FlowRule(match=match, actions=(ToVf(vf=1),))
    with open_nic(name, registry=REGISTRY, state_dir=tmp_path / "state") as nic:
        nic.add_flows([rule])
        nic.configure_vfs([VfConfig(vf=1, mac=0x020000000001)])
        nic.set_rates({1: RateLimit(max_tx_bps=200_000_000)})
        before = nic.vfs(), nic.rates(), len(nic.flows())
    found = run(under_test(name, disposable=False), (breaks, *select(["VF-02"])), disruptive=True)
    assert [case.verdict for case in found.cases] == [Verdict.FAILED, Verdict.PASSED]
    assert "ZeroDivisionError: a bug of the plugin" in found.cases[0].reason
    assert found.residue == ()
    with open_nic(name, registry=REGISTRY, state_dir=tmp_path / "state") as nic:
        assert nic.recovery.clean
        assert (nic.vfs(), nic.rates(), len(nic.flows())) == before


def test_what_can_not_be_put_back_is_told(tmp_path):
    name = f"mock:ixgbe,vfs=4,state={tmp_path / 'nic.json'}"

    def opened():
        driver = REGISTRY.open(name)
        driver.flow_filters.destroy_many = lambda refs: [None for _ in refs]
        return driver

    found = run(
        NicUnderTest(name=name, open_driver=opened, sleep_s=lambda seconds: None),
        select(["FL-12"]),
        disruptive=True,
    )
    assert not found.ok
    assert "rules by table: {} before, {'fdir': 1} after" in found.residue[0]


def test_a_nic_in_use_is_left_alone(tmp_path):
    name = f"mock:ixgbe,vfs=4,state={tmp_path / 'nic.json'}"
    with pytest.raises(ConflictError, match="4 VFs exist"):
        run(under_test(name, disposable=False), select(["FL-12"]))


def result(name, verdict):
    number, _, part = name.rstrip("]").partition("[")
    return CaseResult(behaviour=number, part=part, verdict=verdict, reason="so")


@pytest.mark.parametrize(
    ("entry", "verdict", "expected"),
    [
        ("FL-05", Verdict.FAILED, Verdict.EXPECTED_FAILURE),
        ("FL-05[fdir]", Verdict.FAILED, Verdict.EXPECTED_FAILURE),
        ("FL-05[other]", Verdict.FAILED, Verdict.FAILED),
        ("FL-05[fdir]", Verdict.PASSED, Verdict.STALE),
        ("FL-05[fdir]", Verdict.NOT_SHOWN, Verdict.NOT_SHOWN),
    ],
)
def test_expected_failures(tmp_path, entry, verdict, expected):
    path = tmp_path / "expected.toml"
    path.write_text(
        f'[[failure]]\ncase = "{entry}"\nfamily = "x"\nreason = "a known fault of the firmware"\n'
    )
    entries = load_expected_failures(path)
    (found,), unused = judged([result("FL-05[fdir]", verdict)], entries, "x")
    assert found.verdict is expected
    assert bool(unused) == (entry == "FL-05[other]")
    assert judged([result("FL-05[fdir]", verdict)], entries, "another")[0][0].verdict is verdict


def test_an_entry_for_a_whole_behaviour_that_never_fails_is_stale():
    from nicoffload.testing.conformance import ExpectedFailure

    entries = [ExpectedFailure(case="FL-05", family="", reason="so")]
    found, _ = judged([result("FL-05[a]", Verdict.PASSED), result("FL-05[b]", Verdict.PASSED)], entries, "x")
    assert Verdict.STALE in {each.verdict for each in found}
    found, _ = judged([result("FL-05[a]", Verdict.PASSED), result("FL-05[b]", Verdict.FAILED)], entries, "x")
    assert [each.verdict for each in found] == [Verdict.PASSED, Verdict.EXPECTED_FAILURE]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[failure]]\ncase = "FL-05"\n', "has no reason"),
        ('[[failure]]\ncase = "FL-77"\nreason = "x"\n', "names no behaviour"),
        ('[[failure]]\ncase = "FL-05"\nreason = "x"\nuntil = "never"\n', "case, reason and family"),
        ("case = 1\n", "something else"),
        ("[[", "is no TOML"),
    ],
)
def test_a_wrong_file_of_expected_failures(tmp_path, text, fault):
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=fault):
        load_expected_failures(path)
