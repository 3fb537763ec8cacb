"""The benchmarks measure what they say: wrong answers and counts end a run, times never do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fs.memoryfs import MemoryFS
from fs.opener import Opener, registry

from benchmarks import report
from benchmarks.families import counts
from benchmarks.lab import Lab, WrongCount
from overlayvfs.cli import main
from overlayvfs.cli.race import Contender, Ratio, WrongAnswer, race

ROOT = Path(__file__).parent.parent


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path, quick=True, tell=lambda line: None)


@pytest.mark.parametrize("check", counts.CHECKS, ids=lambda check: check.__name__)
def test_layers_are_asked_no_more_often_than_they_may(check, lab):
    check(lab)
    assert all(each.counted <= each.allowed for each in lab.counts)
    assert lab.counts


def test_one_layer_call_too_many_ends_a_run(lab):
    lab.count("as many as allowed", 3, 3)
    with pytest.raises(WrongCount, match="one more: 4 layer calls, 3 allowed"):
        lab.count("one more", 4, 3)


def test_a_wrong_answer_ends_a_race_before_it_is_timed():
    goes = []
    right = Contender("right", goes.append, lambda _: 1, 1)
    wrong = Contender("wrong", goes.append, lambda _: 2, 1)
    with pytest.raises(WrongAnswer, match="the race: wrong gives 2, the model 1"):
        race("the race", "go", [right, wrong], rounds=2, min_ns=1)
    assert len(goes) == 2


def test_every_contender_takes_its_turn_in_every_round():
    turns = []
    entrants = [Contender(name, lambda _, name=name: turns.append(name), lambda _: 0, 0) for name in "abc"]
    result = race("turns", "turn", entrants, rounds=3, min_ns=0)
    assert "".join(turns[-9:]) == "abcbcacab"
    assert [len(times.wall) for times in result.times.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [(0.9, False, "pass"), (1.0, False, "pass"), (1.1, False, "MISS"), (1.1, True, "pass"), (0.9, True, "MISS")],
)
def test_a_goal_is_missed_beyond_its_limit(value, at_least, verdict, lab):
    lab.goal("1", "something", Ratio(value, 9, 9), 1.0, at_least=at_least)
    assert lab.goals[0].verdict == verdict


def test_report_says_what_was_missed_and_what_could_not_be_measured(lab, tmp_path):
    lab.quick = False
    lab.missing["kernel overlayfs"] = "no such thing here"
    lab.goal("10", "the last", 2.0, 1.0)
    lab.goal("1", "the first", Ratio(0.5, 0.6, 0.7), 1.0)
    lab.goal("2b", "the one in between", None, 1.0)
    report.write(lab, tmp_path / "out")
    page = (tmp_path / "out/RESULTS.md").read_text(encoding="utf-8")
    assert "1 of 3 reached, 1 missed, 1 not measured." in page
    assert page.index("| 1 | the first | ≤ 1 | 0.5 | 0.6 | 0.7 | pass |") < page.index("| 2b | the one in between |")
    assert "| 10 | the last | ≤ 1 | 2 |  |  | MISS |" in page
    assert "| without kernel overlayfs | no such thing here |" in page
    figures = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert [goal["verdict"] for goal in figures["goals"]] == ["MISS", "pass", "n/a"]


def test_quick_run_of_all_families_passes(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", "--quick", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "times mean nothing" in page
    assert "## Goals" not in page
    figures = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {goal["row"] for goal in figures["goals"]} == {*map(str, range(1, 15)), "2b"}


@pytest.fixture
def folders(tmp_path):
    for name in ("high", "low"):
        (tmp_path / name / "d").mkdir(parents=True)
    (tmp_path / "high/d/both").write_text("1")
    (tmp_path / "low/d/both").write_text("22")
    (tmp_path / "low/d/own").write_text("333")
    return [str(tmp_path / name) for name in ("high", "low")]


def bench(*arguments):
    return main(["bench", "depth", "--rounds", "1", "--min-ns", "1", "--depths", "1,2,5", *arguments])


def test_bench_depth_measures_all_at_every_depth(folders, tmp_path, capsys):
    assert bench(*folders, "--json", str(tmp_path / "out.json")) == 0
    measured = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(measured) == ["exists", "exists, of no name", "getinfo(details)", "open, read 100 bytes, close"]
    for curves in measured.values():
        assert list(curves) == ["overlayvfs", "overlayvfs, first time", "MultiFS"]
        assert all([depth for depth, _ in points] == [1, 2, 5] for points in curves.values())
    assert "overlayvfs, first time" in capsys.readouterr().out


def test_bench_depth_draws_a_plot(folders, tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert bench(*folders, "--plot", str(tmp_path / "out.png")) == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_bench_depth_needs_a_name_of_the_lowest_layer(folders, capsys):
    Path(folders[1], "d/own").unlink()
    assert bench(*folders) == 1
    assert "no file that no other has" in capsys.readouterr().err


def test_bench_depth_of_what_is_not_there_fails(tmp_path, capsys):
    assert bench(str(tmp_path / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err


def test_bench_depth_refuses_a_file_system_that_lies(capsys):
    class Liar(MemoryFS):
        def openbin(self, path, mode="r", buffering=-1, **options):
            if mode == "r":
                self.lies += 1
                self.writebytes(path, b"%d" % self.lies)
            return super().openbin(path, mode, buffering, **options)

    class LiarOpener(Opener):
        protocols = ("liar",)

        def open_fs(self, fs_url, parse_result, writeable, create, cwd):
            liar = Liar()
            liar.lies = 0
            liar.writebytes("f", b"")
            return liar

    registry.install(LiarOpener)
    try:
        assert bench("liar://") == 1
    finally:
        del registry._protocols["liar"]
    assert "the model" in capsys.readouterr().err


@pytest.mark.parametrize("depths", ["", "0", "1,x"])
def test_bench_depth_refuses_depths_that_make_no_sense(depths, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "depth", ".", "--depths", depths])
    assert "expected numbers of lowers" in capsys.readouterr().err
