"""The journal: what is damaged is put aside, what can be read is saved, and no rule of ours is dropped in silence."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
import uuid
from pathlib import Path

import pytest
from fake_driver import FakeDriver, make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload.errors import AccessDeniedError, DeviceBusyError, JournalError
from nicoffload.model import (
    Count,
    Drop,
    FlowRule,
    LinkState,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    Police,
    PopVlan,
    PortRange,
    PushVlan,
    RateLimit,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
    TunnelUnset,
    VfConfig,
    VlanTag,
)
from nicoffload.nic import records
from nicoffload.nic.opening import default_state_dir
from nicoffload.nic.salvage import open_file
from nicoffload.nic.sqlite_journal import COLUMNS, SCHEMA


@pytest.fixture(params=[True, False], ids=["cookies", "slots"])
def cookies(request):
    return request.param


@pytest.fixture
def in_memory():
    """A folder in memory where there is one: thousands of journals are made, and each waits for the disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


def write_journal(open_fake, tmp_path, rule, *, cookies=True, count=6):
    """Leave a NIC with rules, a journal with 512-byte pages, and a log that was never emptied."""
    state = tmp_path / "state"
    state.mkdir()
    database = sqlite3.connect(state / "journal.sqlite", isolation_level=None)
    database.execute("PRAGMA page_size = 512")
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA)
    database.execute("INSERT INTO meta VALUES ('schema', '1')")
    database.execute("PRAGMA user_version = 1")
    database.close()
    driver = FakeDriver(path=tmp_path / "nic", cookies=cookies)
    nic = open_fake(driver)
    keep = sqlite3.connect(state / "journal.sqlite")  # the last to close would empty the log
    keep.execute("SELECT * FROM meta").fetchall()
    rules = [rule(port) for port in range(1, count + 1)]
    nic.add_flows(rules[:-2])
    nic.lease_vf("vm-a", ttl_s=1000)
    nic._journal._db.execute("PRAGMA wal_checkpoint")
    nic.add_flows(rules[-2:])
    nic.remove_flows([rules[0].rule_id])
    files = {
        path.name: path.read_bytes() for path in state.iterdir() if path.name.startswith("journal.sqlite")
    }
    nic.close()
    keep.close()
    assert len(files["journal.sqlite"]) > 512
    assert len(files["journal.sqlite-wal"]) > 512
    files.pop("journal.sqlite-shm", None)
    return files, [each.rule_id for each in rules[1:]]


def check_nothing_lost(open_fake, tmp_path, state, ours, cookies):
    """Open a NIC on a damaged journal: each rule of ours is ours again, or is named as not accounted for."""
    driver = FakeDriver(path=tmp_path / "nic", cookies=cookies)
    nic = open_fake(driver, state_dir=state)
    recovery = nic.recovery
    still_ours = {each.rule.rule_id for each in nic.flows() if each.ours}
    assert recovery.undone == (), "what was done is not taken back because its record was lost"
    if cookies:
        assert still_ours == set(ours)
        assert recovery.unaccounted == ()
    else:
        assert len(still_ours) + len(recovery.unaccounted) == len(ours)
        assert still_ours <= set(ours)
    extra = still_ours - set(ours)
    assert not extra
    for path in recovery.damaged:
        assert path.exists() or path.with_name(path.name + "-wal").exists()
    nic.close()
    return recovery


def cut(files, state, name, size):
    state.mkdir()
    for each, content in files.items():
        (state / each).write_bytes(content[:size] if each == name else content)


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal"])
def test_cut_anywhere(open_fake, tmp_path, rule, cookies, name):
    files, ours = write_journal(open_fake, tmp_path, rule, cookies=cookies)
    size = len(files[name])
    places = {0, 1, 15, 16, 31, 32, 33, 99, 100, 511, 512, 513, size - 1, size}
    places |= set(random.Random(name).sample(range(size), 40))
    for place in sorted(places):
        state = tmp_path / f"cut-{place}"
        cut(files, state, name, place)
        check_nothing_lost(open_fake, tmp_path, state, ours, cookies)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal"])
def test_cut_at_every_byte(tmp_path, in_memory, open_fake, rule, name):
    """Every single truncation; opened as a file, which is where the damage is met."""
    files, ours = write_journal(open_fake, tmp_path, rule)
    state = in_memory / "cut"
    whole = 0
    for size in range(len(files[name]) + 1):
        cut(files, state, name, size)
        opened = open_file(state / "journal.sqlite", sleep_s=lambda seconds: None)
        found = {
            uuid.UUID(bytes=row[0])
            for row in opened.connection.execute("SELECT rule_id FROM rules WHERE body IS NOT NULL")
        }
        opened.connection.close()
        damaged = sorted(path.name for path in state.iterdir() if ".damaged-1" in path.name)
        assert bool(damaged) == bool(opened.damaged)
        if name == "journal.sqlite" and size < len(files[name]):
            # With its log SQLite can often mend a database that was cut; what is lost then is nothing.
            assert opened.damaged or found >= set(ours)
        whole += found >= set(ours)
        for path in state.iterdir():
            path.unlink()
        state.rmdir()
    assert whole >= 1


def test_a_file_of_noise_is_put_aside_and_all_rules_are_adopted_by_cookie(open_fake, tmp_path, rule):
    _, ours = write_journal(open_fake, tmp_path, rule)
    journal = tmp_path / "state/journal.sqlite"
    noise = random.Random(1).randbytes(5000)
    journal.write_bytes(noise)
    recovery = check_nothing_lost(open_fake, tmp_path, tmp_path / "state", ours, cookies=True)
    assert {each.ref.rule_id for each in recovery.adopted} == set(ours)
    assert [path.name for path in recovery.damaged] == ["journal.sqlite.damaged-1"]
    assert recovery.damaged[0].read_bytes() == noise
    again = check_nothing_lost(open_fake, tmp_path, tmp_path / "state", ours, cookies=True)
    assert again.clean
    journal.write_bytes(noise)
    third = check_nothing_lost(open_fake, tmp_path, tmp_path / "state", ours, cookies=True)
    assert [path.name for path in third.damaged] == ["journal.sqlite.damaged-2"]


def test_one_broken_page_costs_only_itself(open_fake, tmp_path, rule):
    files, ours = write_journal(open_fake, tmp_path, rule, cookies=False, count=60)
    state = tmp_path / "broken"
    cut(files, state, "", 0)
    with sqlite3.connect(state / "journal.sqlite") as database:
        pages = (
            [row[0] for row in database.execute("SELECT pageno FROM dbstat WHERE name = 'rules'")]
            if _dbstat(database)
            else [12]
        )
    database.close()
    content = bytearray((state / "journal.sqlite").read_bytes())
    page = pages[len(pages) // 2]
    content[(page - 1) * 512 : page * 512] = b"\xff" * 512
    (state / "journal.sqlite").write_bytes(content)
    recovery = check_nothing_lost(open_fake, tmp_path, state, ours, cookies=False)
    assert recovery.damaged
    assert recovery.salvaged > 20
    assert 0 < len(recovery.unaccounted) < 30


def _dbstat(database):
    try:
        database.execute("SELECT 1 FROM dbstat LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 40), which=st.sampled_from(["", "-wal"]))
def test_flipped_bytes_never_end_in_anything_but_an_error_of_ours(
    tmp_path, open_fake, damaged, seed, count, which
):
    files, ours = damaged
    chance = random.Random(seed)
    state = tmp_path / f"flip-{uuid.uuid4()}"
    content = bytearray(files[f"journal.sqlite{which}"])
    for _ in range(count):
        content[chance.randrange(len(content))] = chance.randrange(256)
    cut({**files, f"journal.sqlite{which}": bytes(content)}, state, "", 0)
    nic = open_fake(FakeDriver(path=tmp_path / "nic"), state_dir=state)
    assert {each.rule.rule_id for each in nic.flows() if each.ours} == set(ours)
    nic.close()


@pytest.fixture
def damaged(open_fake, tmp_path, rule):
    return write_journal(open_fake, tmp_path, rule)


def test_leases_and_epochs_are_salvaged(open_fake, tmp_path, rule):
    files, _ = write_journal(open_fake, tmp_path, rule)
    state = tmp_path / "broken"
    cut(files, state, "", 0)
    with sqlite3.connect(state / "journal.sqlite") as database:
        database.execute("PRAGMA user_version = 0")
    database.close()
    nic = open_fake(FakeDriver(path=tmp_path / "nic"), state_dir=state)
    assert nic.recovery.damaged
    assert [lease.owner for lease in nic.leases()] == ["vm-a"]


def test_a_journal_of_a_newer_release_is_left_alone(open_fake, tmp_path, rule):
    write_journal(open_fake, tmp_path, rule)
    with sqlite3.connect(tmp_path / "state/journal.sqlite") as database:
        database.execute("PRAGMA user_version = 2")
        database.execute("UPDATE meta SET value = '2'")
    database.close()
    with pytest.raises(JournalError, match="another release"):
        open_fake(FakeDriver(path=tmp_path / "nic"))
    assert not list((tmp_path / "state").glob("*damaged*"))


def test_records_that_say_nonsense_are_reported(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic", cookies=False)
    nic = open_fake(driver)
    one, two = rule(1), rule(2)
    nic.add_flows([one, two])
    nic.close()
    with sqlite3.connect(tmp_path / "state/journal.sqlite") as database:
        database.execute("UPDATE rules SET body = '[1, 2' WHERE rule_id = ?", (one.rule_id.bytes,))
        database.execute("INSERT INTO rules (nic, rule_id, tbl, body) VALUES ('fake:0', 'x', 'rules', '')")
    database.close()
    again = open_fake(driver)
    assert f"record of rule {one.rule_id} is damaged" in again.recovery.problems[0]
    assert len(again.recovery.unaccounted) == 1
    assert [each.rule.rule_id for each in again.flows() if each.ours] == [two.rule_id]


def test_it_is_durable_before_the_nic_is_touched(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic")
    nic = open_fake(driver)
    seen = []

    def before(number, name):
        other = sqlite3.connect(tmp_path / "state/journal.sqlite")
        seen.append(
            (name, other.execute("SELECT count(*) FROM rules WHERE change IS NOT NULL").fetchone()[0])
        )
        other.close()

    driver.faults.before = before
    one = rule(1)
    nic.add_flows([one])
    nic.remove_flows([one.rule_id])
    assert seen == [("create_many", 1), ("destroy_many", 1)]
    database = nic._journal._db
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert all(
        database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        for table in ("rules", "changes", "steps")
    ), "what is over is not kept"


def test_two_nics_share_the_file_and_not_the_records(open_fake, tmp_path, rule, monkeypatch):
    first = FakeDriver(path=tmp_path / "one")
    second = FakeDriver(path=tmp_path / "two")
    monkeypatch.setattr(second, "identity", lambda: "fake:other", raising=False)
    one, two = open_fake(first), open_fake(second)
    one.add_flows([rule(1)])
    two.add_flows([rule(2), rule(3)])
    one.close()
    two.close()
    assert len(open_fake(first).flows()) == 1
    assert len(open_fake(second).flows()) == 2


def test_two_ports_of_one_nic_share_its_leases_and_not_its_rules(open_fake, tmp_path, rule, monkeypatch):
    first = FakeDriver(path=tmp_path / "one")
    second = FakeDriver(path=tmp_path / "two")
    monkeypatch.setattr(second, "port", lambda: "port 1", raising=False)
    one, two = open_fake(first), open_fake(second)
    one.add_flows([rule(1)])
    lease = one.lease_vf("vm", ttl_s=60)
    assert two.flows() == ()
    assert two.recovery.clean
    two.add_flows([rule(2), rule(3)])
    assert two.leases() == (lease,)
    one.close()
    two.close()
    assert len(open_fake(first).flows()) == 1
    assert len(open_fake(second).flows()) == 2


def test_a_journal_that_was_put_aside_under_us(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic")
    nic = open_fake(driver)
    (tmp_path / "state/journal.sqlite").rename(tmp_path / "state/away")
    with pytest.raises(JournalError, match="put aside by another process"):
        nic.add_flows([rule(1)])
    assert driver.hardware.rules == {}


def test_a_full_disk_changes_nothing(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic")
    nic = open_fake(driver)
    pages = nic._journal._db.execute("PRAGMA page_count").fetchone()[0]
    nic._journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        nic.add_flows([rule(port) for port in range(1, 400)])
    assert driver.hardware.rules == {}
    assert nic.flows() == ()


def test_a_journal_that_another_holds(open_fake, tmp_path, rule):
    nic = open_fake(FakeDriver(path=tmp_path / "nic"))
    other = sqlite3.connect(tmp_path / "state/journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    nic._journal._db.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(DeviceBusyError, match="another process holds the journal"):
        nic.add_flows([rule(1)])
    other.execute("ROLLBACK")
    other.close()
    nic.add_flows([rule(1)])


def test_a_folder_that_can_not_be(open_fake, tmp_path):
    (tmp_path / "file").write_text("")
    driver = FakeDriver(path=tmp_path / "nic")
    with pytest.raises(JournalError, match="can't make the folder"):
        open_fake(driver, state_dir=tmp_path / "file" / "state")
    assert driver.closed == 1, "the NIC was let go of"


def test_a_folder_that_may_not_be_written(open_fake, tmp_path, monkeypatch):
    def refuse(*args, **keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(AccessDeniedError) as caught:
        open_fake(FakeDriver(path=tmp_path / "nic"))
    assert "NICOFFLOAD_STATE_DIR" in caught.value.hint


def test_where_the_journal_is(monkeypatch, tmp_path):
    monkeypatch.setenv("NICOFFLOAD_STATE_DIR", str(tmp_path))
    assert default_state_dir() == tmp_path
    monkeypatch.delenv("NICOFFLOAD_STATE_DIR")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert str(default_state_dir()) == "/var/lib/nicoffload"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert str(default_state_dir()) == "/x/nicoffload"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state_dir().parts[-3:] == (".local", "state", "nicoffload")


def test_a_nic_in_memory_makes_no_file(open_fake, tmp_path, rule):
    nic = open_fake(FakeDriver())
    nic.add_flows([rule(1)])
    assert not (tmp_path / "state").exists()


def test_salvage_copies_every_table():
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert set(COLUMNS) == tables - {"meta", "sqlite_sequence"}
    for table, columns in COLUMNS.items():
        assert [row[1] for row in database.execute(f"PRAGMA table_info({table})")] == list(columns)
    database.close()


ACTIONS = [
    ToVf(vf=3, queue=2),
    ToQueue(queue=4),
    ToPf(),
    ToUplink(),
    Drop(),
    Mirror(port=2),
    Police(rate_bps=1000, burst_bytes=5),
    PushVlan(vid=5, pcp=3, tpid=0x88A8),
    PopVlan(),
    ModifyVlan(vid=6),
    SetField(field="ipv4_dst", value=Masked(0x0A000000, 0xFF000000)),
    TunnelSet(tun_id=5, src="10.0.0.1", dst="10.0.0.2"),
    TunnelUnset(),
    Count(),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_rules_come_back_as_they_were_written(action):
    fates = (ToVf, ToQueue, ToPf, ToUplink, Drop)
    actions = (action,) if isinstance(action, fates) else (action, Drop())
    match = Match.of(ipv4_src="10.0.0.0/8", ip_proto=6).replace(tp_dst=PortRange(5, 9), tp_src=Masked(2, 3))
    for priority in (None, 0, 77):
        one = FlowRule(match=match, actions=actions, priority=priority)
        assert records.decode_rule(records.encode_rule(one), one.rule_id) == one


def test_settings_come_back_as_they_were_written():
    config = VfConfig(vf=1, mac=5, vlan=VlanTag(vid=3, pcp=1), trust=False, link_state=LinkState.DISABLE)
    for each in (config, VfConfig(vf=0)):
        assert records.decode_config(records.encode_setting(each)) == each
    for rate in (None, RateLimit(), RateLimit(min_tx_bps=5, max_tx_bps=6)):
        assert records.decode_rate(records.encode_setting(rate)) == rate
    assert records.decode_count(records.encode_setting(7)) == 7


@pytest.mark.parametrize(
    ("decode", "texts"),
    [
        (
            lambda text: records.decode_rule(text, uuid.uuid4()),
            ["", "[]", '[null, [], [], [["vf", {}]]]', "7"],
        ),
        (records.decode_config, ["", "[]", '{"vf": -1}', '{"x": 1}', "null"]),
        (records.decode_rate, ["", "[]", '{"max_tx_bps": 0}']),
        (records.decode_count, ["", "x"]),
    ],
)
def test_a_record_that_is_damaged_says_so(decode, texts):
    for text in texts:
        with pytest.raises(JournalError, match="damaged"):
            decode(text)


def test_the_fake_table_is_as_declared():
    assert make_table(picker="driver").picker == "driver"
