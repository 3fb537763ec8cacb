"""Watching: one record a mutating verb, none for reading, and nothing at all where nobody watches."""

import errno
import gc
import io
import json
import logging
import os
import threading
import weakref
from contextlib import suppress

import pytest

from overlayvfs import MemoryFS, OverlayFS, audit_log
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance.trees import raises_errno
from overlayvfs.workspace.watch import Record


@pytest.fixture
def ofs():
    lower = MemoryFS()
    lower.writetext("f", "lower")
    lower.makedir("d")
    return OverlayFS([lower], MemoryFS())


VERBS = {
    "mkdir": (lambda o: o.mkdir("/n"), ("/n",)),
    "mknod": (lambda o: o.mknod("/n"), ("/n",)),
    "symlink": (lambda o: o.symlink("f", "/n"), ("f", "/n")),
    "link": (lambda o: o.link("/f", "/n"), ("/f", "/n")),
    "unlink": (lambda o: o.unlink("/f"), ("/f",)),
    "rmdir": (lambda o: o.rmdir("/d"), ("/d",)),
    "rename": (lambda o: o.rename("/f", "/n"), ("/f", "/n")),
    "truncate": (lambda o: o.truncate("/f", 1), ("/f",)),
    "chmod": (lambda o: o.chmod("/f", 0o600), ("/f",)),
    "chown": (lambda o: o.chown("/f", 1, 1), ("/f",)),
    "utime": (lambda o: o.utime("/f"), ("/f",)),
    "setxattr": (lambda o: o.setxattr("/f", "user.k", b"v"), ("/f",)),
    "open": (lambda o: o.open("/n", os.O_WRONLY | os.O_CREAT), ("/n",)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_mutating_verb_is_one_record(ofs, verb):
    act, paths = VERBS[verb]
    records = []
    ofs.watch(records.append)
    act(ofs.os)
    assert records == [Record(verb, paths, None, 0)]


def test_removing_an_attribute_is_one_record(ofs):
    ofs.os.setxattr("/f", "user.k", b"v")
    records = []
    ofs.watch(records.append)
    ofs.os.removexattr("/f", "user.k")
    assert records == [Record("removexattr", ("/f",), None, 0)]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_fails_is_a_record_with_its_errno(verb):
    act, paths = VERBS[verb]
    lower = MemoryFS()
    lower.writetext("f", "lower")
    lower.makedir("d")
    read_only = OverlayFS([lower])
    records = []
    read_only.watch(records.append)
    with raises_errno(errno.EROFS):
        act(read_only.os)
    assert records == [Record(verb, paths, errno.EROFS, 0)]


def test_reading_is_no_record(ofs):
    records = []
    ofs.watch(records.append)
    ofs.os.stat("/f")
    ofs.os.listdir("/")
    ofs.os.close(ofs.os.open("/f", os.O_RDONLY))
    ofs.readtext("f")
    with suppress(OSError):
        ofs.os.readlink("/f")
    assert list(ofs.walk.files()) == ["/f"]
    assert records == []


def test_writes_through_descriptors_are_records_with_their_bytes(ofs):
    fd = ofs.os.open("/f", os.O_RDWR)
    records = []
    ofs.watch(records.append)
    ofs.os.write(fd, b"12345")
    ofs.os.pwrite(fd, b"123", 1)
    ofs.os.ftruncate(fd, 2)
    ofs.os.fchmod(fd, 0o600)
    ofs.os.utime(fd)
    assert records == [
        Record("write", ("/f",), None, 5),
        Record("write", ("/f",), None, 3),
        Record("truncate", ("/f",), None, 0),
        Record("chmod", ("/f",), None, 0),
        Record("utime", ("/f",), None, 0),
    ]


def test_a_descriptor_is_recorded_under_the_name_it_has_by_then(ofs):
    fd = ofs.os.open("/f", os.O_RDWR)
    ofs.os.rename("/f", "/d/g")
    records = []
    ofs.watch(records.append)
    ofs.os.write(fd, b"x")
    assert records == [Record("write", ("/d/g",), None, 1)]


def test_a_write_that_fails_is_a_record_with_its_errno():
    ofs = OverlayFS([MemoryFS()], MemoryFS(size=4096))
    fd = ofs.os.open("/f", os.O_RDWR | os.O_CREAT)
    records = []
    ofs.watch(records.append)
    with raises_errno(errno.ENOSPC):
        ofs.os.write(fd, b"x" * 5000)
    assert records == [Record("write", ("/f",), errno.ENOSPC, 0)]


def test_records_add_up_to_what_was_written(ofs):
    records = []
    with ofs.watch(records.append):
        ofs.writebytes("a", b"x" * 1000)
        with ofs.open("b", "w") as file:
            file.write("y" * 10)
        ofs.copy("a", "c")
    assert sum(record.bytes for record in records) == 2010
    assert {record.paths for record in records} == {("/a",), ("/b",), ("/c",)}


def test_the_methods_of_pyfilesystem_are_the_verbs_they_make(ofs):
    ofs.makedirs("a/b")
    ofs.touch("a/b/f")
    records = []
    ofs.watch(records.append)
    ofs.removetree("a")
    assert [(record.verb, *record.paths) for record in records] == [
        ("unlink", "/a/b/f"),
        ("rmdir", "/a/b"),
        ("rmdir", "/a"),
    ]


def test_closing_the_watch_ends_it_and_nothing_is_left_in_the_path(ofs):
    overlay, mnt = ofs._overlay, ofs._overlay._mnt
    records = []
    watch = ofs.watch(records.append)
    watch.close()
    watch.close()
    ofs.touch("n")
    assert records == []
    assert ofs._overlay is overlay and ofs.os._overlay is overlay and overlay._mnt is mnt
    assert mnt.watchers == ()


class Counting(MemoryLayer):
    """A memory layer that counts what it is asked."""

    calls = 0

    def __getattribute__(self, name):
        if not name.startswith("_"):
            Counting.calls += 1
        return super().__getattribute__(name)


def test_watching_asks_the_layers_nothing_more():
    def count(watched):
        ofs = OverlayFS([MemoryFS()], Counting())
        if watched:
            ofs.watch(lambda record: None)
        Counting.calls = 0
        ofs.makedirs("a/b")
        ofs.writetext("a/b/f", "text")
        ofs.os.rename("/a/b/f", "/g")
        ofs.readtext("g")
        return Counting.calls

    assert count(watched=True) == count(watched=False) > 0


def test_several_watch_at_once(ofs):
    one, other = [], []
    first = ofs.watch(one.append)
    ofs.watch(other.append)
    ofs.touch("n")
    first.close()
    ofs.remove("n")
    assert one == other[: len(one)]
    assert other[len(one) :] == [Record("unlink", ("/n",), None, 0)]


def test_a_callback_may_use_the_overlay(ofs):
    sizes = []
    ofs.watch(lambda record: sizes.append(ofs.getsize("f")))
    ofs.writetext("f", "four")
    assert sizes == [0, 4]


def test_what_can_not_be_called_is_no_callback(ofs):
    with pytest.raises(TypeError, match="expected a function of a Record, not int"):
        ofs.watch(3)


def test_a_callback_that_raises_is_logged_and_fails_no_verb(ofs, caplog):
    def fail(record):
        raise ValueError("no")

    ofs.watch(fail)
    with caplog.at_level(logging.ERROR):
        ofs.os.mkdir("/n")
    assert ofs.isdir("n")
    assert "a watch callback failed at mkdir /n" in caplog.text


def test_a_fork_is_watched_on_its_own(ofs):
    records = []
    ofs.watch(records.append)
    with ofs.fork() as fork:
        fork.touch("n")
    assert records == []


def test_a_watch_keeps_no_overlay_open():
    gc.disable()
    try:
        ofs = OverlayFS([MemoryFS()], MemoryFS())
        watch = ofs.watch([].append)
        overlay = weakref.ref(ofs._overlay)
        del ofs
        assert overlay() is None
    finally:
        gc.enable()
    watch.close()


def test_memory_file_systems_can_be_watched_too():
    fs = MemoryFS()
    records = []
    fs.watch(records.append)
    fs.makedir("d")
    assert records == [Record("mkdir", ("/d",), None, 0)]


def test_records_of_several_threads_come_in_the_order_of_the_changes(ofs):
    records = []
    ofs.watch(records.append)

    def work(number):
        for turn in range(20):
            ofs.os.mkdir(f"/{number}-{turn}")
            with suppress(FileExistsError):
                ofs.os.mkdir(f"/shared-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 4 * 40
    for turn in range(20):
        results = [record.errno for record in records if record.paths == (f"/shared-{turn}",)]
        assert results == [None, errno.EEXIST, errno.EEXIST, errno.EEXIST]


def test_the_audit_log_is_a_line_of_json_a_record(ofs):
    log = io.StringIO()
    ofs.watch(audit_log(log))
    ofs.writetext("n\udcff", "text")
    with raises_errno(errno.ENOENT):
        ofs.os.unlink("/nothing")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [{**line, "time_ns": 0} for line in lines] == [
        {"time_ns": 0, "verb": "open", "paths": ["/n\udcff"], "errno": None, "bytes": 0},
        {"time_ns": 0, "verb": "write", "paths": ["/n\udcff"], "errno": None, "bytes": 4},
        {"time_ns": 0, "verb": "unlink", "paths": ["/nothing"], "errno": "ENOENT", "bytes": 0},
    ]
    assert lines[0]["time_ns"] <= lines[1]["time_ns"] <= lines[2]["time_ns"]
