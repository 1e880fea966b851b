"""Results on their way into files, pictures and text."""

from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace

import pytest

from examples.lab import __main__, needs, plots, records, summary


def test_results_come_back_as_they_were(results, tmp_path):
    records.write(results, tmp_path)
    assert records.read(tmp_path / "lab.json") == results


def test_every_kind_of_measurement_has_a_table(results, tmp_path):
    written = {path.name for path in records.write(results, tmp_path)}
    assert written == {
        "lab.json",
        "rates.csv",
        "saturation.csv",
        "switching-udp.csv",
        "switching-tcp.csv",
        "flows.csv",
        "timeline.csv",
    }
    with (tmp_path / "rates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.rates)
    assert (rows[0]["vswitch"], rows[0]["mode"], float(rows[0]["goodput_bps"])) == (
        "ovs",
        "vswitch",
        5e8 / 12,
    )


def test_nothing_measured_makes_no_empty_table(tmp_path):
    assert [path.name for path in records.write(records.Results(), tmp_path)] == ["lab.json"]


def test_goals_that_are_held_say_so(results, tmp_path):
    records.write(results, tmp_path)
    goals = json.loads((tmp_path / "lab.json").read_text("utf-8"))["goals"]
    assert {goal["name"]: goal["held"] for goal in goals} == {
        "offloaded_over_ideal": True,
        "offloaded_cpu_over_vswitch": True,
        "switch_ovs_lost": True,
        "switch_ovs_duplicated": True,
        "switch_ovs_goodput": True,
        "switch_ovs_tcp_switches": True,
        "view_ovs_difference": True,
    }


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"rates": {"goodput_bps": 1.1e9}}, "offloaded_over_ideal"),
        ({"rates": {"cpu_s_per_gb": 5.1}}, "offloaded_cpu_over_vswitch"),
        ({"udp": {"lost": 1}}, "switch_ovs_lost"),
        ({"udp": {"duplicated": 1}}, "switch_ovs_duplicated"),
        ({"tcp": {"switched_bps": 9.6e7}}, "switch_ovs_goodput"),
        ({"tcp": {"switches": 99}}, "switch_ovs_tcp_switches"),
        ({"paths": {"received_packets": 122_759}}, "view_ovs_difference"),
        ({"paths": {"dropped_by_vswitch": 1}}, "view_ovs_difference"),
    ],
)
def test_goals_that_are_missed_say_so(results, change, missed):
    ((kind, fields),) = change.items()
    rows = getattr(results, kind)
    place = next(
        place
        for place, row in enumerate(rows)
        if kind != "rates" or (row.mode, row.vms, row.segments) == ("offloaded", 12, "gso")
        if kind != "udp" or row.switches
    )
    rows[place] = replace(rows[place], **fields)
    assert [goal.name for goal in results.goals() if not goal.held] == [missed]
    assert any(line.startswith("MISSED") for line in summary.lines(results))


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 1)])
def test_a_goal_that_is_missed_is_told_by_the_exit_code(results, tmp_path, monkeypatch, capsys, lost, code):
    results.udp[1] = replace(results.udp[1], lost=lost)
    monkeypatch.setattr(needs, "check_root", lambda: None)
    monkeypatch.setattr(needs, "prepare", lambda *_: tmp_path)
    monkeypatch.setattr(__main__, "measure", lambda *_, **__: results)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert __main__.main(["--out", str(tmp_path)]) == code
    output = capsys.readouterr().out
    assert ("1 of 7 goals missed: exit code 1" in output) == bool(lost)
    assert ("MISSED" in output) == bool(lost)


def test_what_could_not_be_measured_has_another_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert __main__.main(["--out", str(tmp_path)]) == 2
    assert "needs root" in capsys.readouterr().err


def test_a_picture_says_where_it_was_measured(results):
    results.about |= {"processor": "Some CPU", "cpus": "2", "time": "2026-01-02T03:04:05Z"}
    assert plots.conditions(results) == "Some CPU · 2 CPUs · Linux 6.1 · 2026-01-02"
    assert plots.conditions(records.Results()) == ""


def test_pictures_are_drawn_of_what_there_is(results, tmp_path):
    written = plots.draw_all(results, tmp_path)
    assert [path.name for path in written] == [
        "lab.png",
        "throughput.png",
        "cpu.png",
        "cpu-parts.png",
        "saturation.png",
        "paths.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert plots.draw_all(records.Results(), tmp_path) == []


def drawn(plot, results):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plot(axes, results)
    return axes


def test_throughput_is_drawn_against_the_ideal(results):
    axes = drawn(plots.throughput, results)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["ideal"] == pytest.approx([0.1, 0.4, 1.2])
    assert lines["all offloaded"][-1] == pytest.approx(1.19)
    assert set(lines) == {"ideal", *plots.LABELS.values()}
    assert axes.get_xlabel()
    assert "Gbit/s" in axes.get_ylabel()


def test_packets_of_the_mtu_s_size_are_not_in_the_lines(results):
    results.rates.append(replace(results.rates[0], segments="mtu", goodput_bps=1.0))
    lines = {
        line.get_label(): list(line.get_ydata()) for line in drawn(plots.throughput, results).get_lines()
    }
    assert len(lines["all on the virtual switch"]) == 3


@pytest.mark.parametrize(
    "plot", [plots.segments, plots.saturation, plots.timeline, plots.one_view, plots.cpu, plots.throughput]
)
def test_every_plot_has_a_title_and_names_its_axes(results, plot):
    axes = drawn(plot, results)
    assert axes.get_title()
    assert axes.get_xlabel() or axes.get_ylabel()


def test_the_text_tells_both_paths_and_what_was_lost(results):
    text = "\n".join(summary.lines(results))
    assert "tcp,nw_dst=10.97.1.1" in text
    assert "122,760 packets in the view, 122,760 at their interfaces, 0 dropped" in text
    assert "2,000 switches in 9.0 s (ovs) at 100 Mbit/s: 90,000 sent, 45,000 by the NIC, 0 lost" in text
    assert "0 duplicated, 4 reordered" in text
    assert "without switching (ovs): 90,000 sent, 5 lost" in text
