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
from nicoffload.nic import blocks, records
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.opening import default_state_dir
from nicoffload.nic.rule_log import RuleLog
from nicoffload.nic.salvage import open_file
from nicoffload.nic.sqlite_journal import COLUMNS, SCHEMA, SCHEMA_VERSION


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
    database.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
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
        found = {record.rule_id for record in RuleLog("fake:0").rules(opened.connection)}
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
    files, ours = write_journal(open_fake, tmp_path, rule, cookies=False, count=400)
    state = tmp_path / "broken"
    cut(files, state, "", 0)
    with sqlite3.connect(state / "journal.sqlite") as database:
        pages = (
            [row[0] for row in database.execute("SELECT pageno FROM dbstat WHERE name = 'blocks'")]
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
    assert recovery.salvaged > 200
    assert 0 < len(recovery.unaccounted) < 200


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
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        database.execute("UPDATE meta SET value = ?", (str(SCHEMA_VERSION + 1),))
    database.close()
    with pytest.raises(JournalError, match="another release"):
        open_fake(FakeDriver(path=tmp_path / "nic"))
    assert not list((tmp_path / "state").glob("*damaged*"))


def test_records_that_can_not_be_read_are_reported_once(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic", cookies=False)
    nic = open_fake(driver)
    one, two = rule(1), rule(2)
    nic.add_flows([one])
    nic.add_flows([two])
    nic.close()
    with sqlite3.connect(tmp_path / "state/journal.sqlite") as database:
        body = bytearray(database.execute("SELECT body FROM blocks WHERE number = 1").fetchone()[0])
        body[-1] ^= 1
        database.execute("UPDATE blocks SET body = ? WHERE number = 1", (bytes(body),))
        database.execute(
            "INSERT INTO blocks (nic, was, rules, body) VALUES ('fake:0', 0, 3, 'x'), ('fake:0', 1, 4, x'00')"
        )
    database.close()
    again = open_fake(driver)
    assert [text.split("; ")[1] for text in again.recovery.problems] == [
        "it is number 1 and has 1 rules",
        "it is number 3 and has 3 rules",
        "it is number 4 and has 4 rules",
    ]
    assert all("damaged" in text for text in again.recovery.problems)
    assert len(again.recovery.unaccounted) == 1
    assert [each.rule.rule_id for each in again.flows() if each.ours] == [two.rule_id]
    again.close()
    third = open_fake(driver)
    assert third.recovery.problems == ()
    assert [each.rule.rule_id for each in third.flows() if each.ours] == [two.rule_id]


def test_it_is_durable_before_the_nic_is_touched(open_fake, tmp_path, rule):
    driver = FakeDriver(path=tmp_path / "nic")
    nic = open_fake(driver)
    seen = []

    def before(number, name):
        other = sqlite3.connect(tmp_path / "state/journal.sqlite")
        seen.append(
            (name, other.execute("SELECT total(rules) FROM blocks WHERE change IS NOT NULL").fetchone()[0])
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
        for table in ("blocks", "changes", "steps")
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


def through_blocks(written):
    """Return records as they are read back from the blocks that they are written in."""
    return [record for block in blocks.pack(written) for record in blocks.unpack(block.body)]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_rules_come_back_as_they_were_written(action):
    fates = (ToVf, ToQueue, ToPf, ToUplink, Drop)
    actions = (action,) if isinstance(action, fates) else (action, Drop())
    match = Match.of(ipv4_src="10.0.0.0/8", ip_proto=6).replace(tp_dst=PortRange(5, 9), tp_src=Masked(2, 3))
    wide = Match.of(ipv6_dst="2001:db8::1", in_port=3, eth_src="02:00:00:00:00:01", tun_id=(1 << 31))
    rules = [
        FlowRule(match=each, actions=actions, priority=priority)
        for each in (match, wide, Match())
        for priority in (None, 0, 77)
    ]
    written = [
        RuleRecord(rule.rule_id, "rules", slot, rule)
        for rule, slot in zip(rules, (None, 0, 5, -1, None, 1 << 40, None, 7, None), strict=True)
    ]
    read = through_blocks(written)
    assert {record.rule_id: record.rule for record in read} == {rule.rule_id: rule for rule in rules}
    assert {record.rule_id: record.ref for record in read} == {
        record.rule_id: record.ref for record in written
    }
    assert {record.rule_id: record.rule for record in through_blocks(read)} == {
        rule.rule_id: rule for rule in rules
    }


def test_a_record_knows_its_rule_without_making_it(rule):
    one = rule(5, priority=3)
    [record] = through_blocks([RuleRecord(one.rule_id, "rules", None, one)])
    assert record.body.is_of(one)
    others = [
        rule(6, priority=3),
        rule(5, priority=4),
        rule(5, vf=1, priority=3),
        rule(5, ip_ttl=1, priority=3),
    ]
    assert not any(map(record.body.is_of, others))


def test_many_rules_take_few_blocks_and_each_block_is_small(rule):
    written = [RuleRecord(one.rule_id, "rules", None, one) for one in (rule(n % 9 + 1) for n in range(100))]
    found = list(blocks.pack(written))
    assert [block.rules for block in found] == [32, 32, 32, 4]
    assert max(len(block.body) for block in found) < 1024
    assert [record.rule_id for record in through_blocks(written)] == [record.rule_id for record in written]
    assert list(blocks.pack(())) == list(blocks.pack_ids(())) == []


def test_every_flipped_bit_of_a_block_is_noticed(rule):
    one = rule(1)
    [block] = blocks.pack([RuleRecord(one.rule_id, "rules", 3, one)])
    for bit in range(8 * len(block.body)):
        body = bytearray(block.body)
        body[bit // 8] ^= 1 << bit % 8
        with pytest.raises(JournalError, match="damaged"):
            blocks.unpack(bytes(body))
    for length in range(len(block.body)):
        with pytest.raises(JournalError, match="damaged"):
            blocks.unpack(block.body[:length])


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
