"""`overlayvfs shell`: a stack of layers by hand and by script."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.cli import main
from overlayvfs.cli.commands import COMMANDS, Session
from overlayvfs.cli.shell import Prompt
from overlayvfs.cli.words import Unfinished, split


@pytest.fixture
def lower(tmp_path):
    lower = tmp_path / "lower"
    (lower / "d" / "sub").mkdir(parents=True)
    (lower / "a").write_text("lower a\n")
    (lower / "d" / "f").write_text("f\n")
    (lower / "d" / "sub" / "g").write_text("g\n")
    return lower


@pytest.fixture
def shell(lower, capsys):
    """Run a script over `lower`: (exit status, standard output, standard error)."""

    def run(script, *options):
        status = main(["shell", str(lower), *options, "-c", script])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("ls /a; cat b\n\npwd", [["ls", "/a"], ["cat", "b"], ["pwd"]]),
        ("write 'a b' \"c;d\" e\\ f", [["write", "a b", "c;d", "e f"]]),
        ("write f ''", [["write", "f", ""]]),
        (r"""write f "a\"b\\c\d" 'e\'""", [["write", "f", r"a\"b\c\d".replace('\\"', '"'), "e\\"]]),
        ("ls # all; of it\npwd", [["ls"], ["pwd"]]),
        ("write f a#b", [["write", "f", "a#b"]]),
        ("write f 'two\nlines'", [["write", "f", "two\nlines"]]),
        ("write \\\n f x", [["write", "f", "x"]]),
        (" ;; \n", []),
    ],
)
def test_words_are_split_as_sh_does(text, commands):
    assert split(text) == commands


@pytest.mark.parametrize("text", ["write f 'a", 'write f "a\\', "ls \\"])
def test_a_quotation_without_end_is_unfinished(text):
    with pytest.raises(Unfinished):
        split(text)


def test_looking_shows_the_merged_tree(shell):
    assert shell("ls; cat a d/f; tree; cd d; pwd; ls sub") == (
        0,
        "a\nd\nlower a\nf\n|-- a\n`-- d\n    |-- f\n    `-- sub\n        `-- g\n/d\ng\n",
        "",
    )


def test_ls_l_shows_modes_sizes_and_targets(shell):
    _, out, _ = shell("ln -s a link; ls -l")
    assert re.search(r"^-rw-r--r-- +1 \S+ +8 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d a$", out, re.MULTILINE)
    assert re.search(r"^lrwxrwxrwx .* link -> a$", out, re.MULTILINE)


def test_ls_of_several_says_which(shell):
    assert shell("ls a d d/sub")[1] == "a\nd:\nf\nsub\nd/sub:\ng\n"


def test_stat_shows_attributes(shell):
    _, out, _ = shell("stat a d")
    assert out.startswith("/a: file, 8 bytes, inode ")
    assert "-rw-r--r-- (0644), owner " in out and "/d: directory, " in out


def test_changing_leaves_the_lower_as_it_was(shell, lower):
    before = sorted(os.walk(lower))
    script = "write -a a more; cp a b; cp -r d e; mv d/f b2; mkdir -p x/y; ln b c; rm -r d; rm -f nothing; tree; cat a"
    status, out, err = shell(script)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "|-- a",
        "|-- b",
        "|-- b2",
        "|-- c",
        "|-- e",
        "|   |-- f",
        "|   `-- sub",
        "|       `-- g",
        "`-- x",
        "    `-- y",
        "lower a",
        "more",
    ]
    assert sorted(os.walk(lower)) == before
    assert (lower / "a").read_text() == "lower a\n"


def test_mv_copies_a_directory_that_can_not_be_renamed(shell):
    assert shell("mv d e; ls; ls e")[:2] == (0, "a\ne\nf\nsub\n")


def test_several_sources_go_into_a_directory(shell):
    assert shell("write b x; cp a b d; ls d")[1] == "a\nb\nf\nsub\n"
    status, _, err = shell("cp a d/f nothing")
    assert (status, err) == (1, "cp: /nothing: Not a directory\n")


def test_changes_lists_what_differs(shell):
    _, out, _ = shell("write -a a x; rm d/f; mkdir new; changes; changes d")
    assert out == "C /a  (content, times)\nD /d/f\nA /new/\nD /d/f\n"


def test_diff_shows_lines(shell):
    _, out, _ = shell("write -a a more; write new text; diff a; diff")
    assert out.count("+more\n") == 2
    assert out.count("+text\n") == 1
    assert out.startswith("--- ")


def test_where_says_which_layer_and_why(shell, lower):
    status, out, _ = shell("write a x; rm d/f; where a d/sub/g d/f nothing")
    first, second, third, fourth = out.splitlines()
    assert status == 0
    assert first.startswith("/a: ") and "upper" in first
    assert "lower 1" in second
    assert "whiteout" in third
    assert "/nothing" in fourth


def test_a_fork_is_kept_by_commit_and_forgotten_by_rollback(shell):
    _, out, _ = shell("write b x; fork; rm a; ls; rollback; ls; fork; write c x; commit -n; commit; ls")
    assert out.splitlines() == [
        *("b", "d"),
        *("a", "b", "d"),
        "1 change would be committed",
        "1 change committed",
        *("a", "b", "c", "d"),
    ]


def test_rollback_outside_of_a_fork_forgets_all_changes(shell):
    assert shell("rm a; rm -r d; ls; rollback; ls; changes")[:2] == (0, "a\nd\n")


def test_commit_brings_the_changes_into_a_lower(shell, lower):
    status, out, _ = shell(f"write -a a more; rm -r d; commit -n {lower}; commit {lower}; changes")
    assert (status, (lower / "a").read_text(), sorted(os.listdir(lower))) == (0, "lower a\nmore\n", ["a"])
    assert out == "5 changes would be committed\n5 changes committed\n"


def test_a_saved_upper_is_gone_on_with(shell, tmp_path):
    saved = str(tmp_path / "upper.tar")
    assert shell(f"rm a; write new x; save {saved}")[0] == 0
    assert shell("ls", "--upper", saved)[1] == "d\nnew\n"


def test_an_upper_keeps_the_changes(shell, tmp_path):
    (tmp_path / "upper").mkdir()
    assert shell("rm a", "--upper", str(tmp_path / "upper"))[0] == 0
    assert shell("ls", "--upper", str(tmp_path / "upper"))[1] == "d\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cat nothing", "cat: /nothing: No such file or directory"),
        ("cat d", "cat: /d: Is a directory"),
        ("rm d", "rm: /d: Is a directory"),
        ("cp d e", "cp: /d: Is a directory: cp -r copies it"),
        ("mv nothing x", "mv: /nothing -> /x: No such file or directory"),
        ("mkdir a", "mkdir: /a: File exists"),
        ("cp a a", "cp: '/a' is what is to be copied or moved there, or lies in it"),
        ("cp -r d d/sub", "cp: '/d/sub/d' is what is to be copied or moved there, or lies in it"),
        ("cd a", "cd: /a: Not a directory"),
        ("ln -s a a", "ln: a -> /a: File exists"),
        ("commit /nothing/here", "commit: /nothing/here: No such file or directory"),
    ],
)
def test_a_command_that_fails_says_why_and_is_the_last(shell, command, message):
    status, out, err = shell(f"{command}; pwd")
    assert (status, out) == (1, "")
    assert err.startswith(message)
    assert "\n" not in err[:-1]


@pytest.mark.parametrize("command", ["dance", "ls -x", "cat", "ln a", "pwd x", "commit", "help dance", "write f 'x"])
def test_a_command_that_makes_no_sense_is_2(shell, command):
    status, out, err = shell(f"{command}\n")
    assert (status, out) == (2, "")
    assert err


def test_exit_ends_a_script(shell):
    assert shell("pwd; exit; dance") == (0, "/\n", "")


def test_help_lists_every_command(shell):
    _, out, _ = shell("help")
    assert [line.split()[0] for line in out.splitlines()] == list(COMMANDS)
    assert "usage" not in shell("help cp")[1] and "[-r] SOURCE… TARGET" in shell("help cp")[1]


def test_a_lower_that_is_not_there_is_an_error(capsys):
    assert main(["shell", "/nothing/here", "-c", "ls"]) == 1
    assert "/nothing/here" in capsys.readouterr().err


def test_standard_input_is_a_script_where_nobody_types(lower):
    command = [sys.executable, "-m", "overlayvfs", "shell", str(lower)]
    ran = subprocess.run(command, input="ls\ncat nothing\nls\n", capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "a\nd\n")
    assert ran.stderr == "cat: /nothing: No such file or directory\n"


def test_bytes_pass_through_cat(lower):
    (lower / "binary").write_bytes(bytes(range(256)))
    command = [sys.executable, "-m", "overlayvfs", "shell", str(lower), "-c", "cat binary"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == bytes(range(256))


def test_names_that_are_no_utf_8_are_shown_as_they_are(lower):
    try:
        (lower / os.fsdecode(b"caf\xe9")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    command = [sys.executable, "-m", "overlayvfs", "shell", str(lower), "-c", "ls"]
    assert b"caf\xe9\n" in subprocess.run(command, capture_output=True, check=True).stdout


# As someone types


@pytest.fixture
def prompt():
    lower = MemoryFS()
    lower.makedirs("dir/sub").touch("file")
    lower.touch("data")
    return Prompt(Session([OverlayFS([lower], MemoryFS())]))


def test_commands_and_paths_are_completed(prompt):
    assert completed(prompt, "m") == ["mkdir ", "mv "]
    assert completed(prompt, "ls; mk") == ["ls; mkdir "]
    assert completed(prompt, "cat d") == ["cat data ", "cat dir/"]
    assert completed(prompt, "cat dir/sub/") == ["cat dir/sub/file "]
    prompt.onecmd("cd dir")
    assert completed(prompt, "cat ") == ["cat sub/"]
    assert completed(prompt, "cat /da") == ["cat /data "]
    assert completed(prompt, "cat nothing/x") == []


def completed(prompt, line):
    """Return the lines that readline makes of one: it has what follows the last blank or semicolon completed."""
    begins = max(line.rfind(char) for char in " ;") + 1
    found = prompt.completedefault(line[begins:], line, begins, len(line))
    return [line[:begins] + word for word in found]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("cat odd", r"cat odd\ name/"),
        (r"cat odd\ n", r"cat odd\ name/"),
        (r"cat odd\ name/it", r"cat odd\ name/it\'s "),
        ("cat 'odd n", "cat 'odd name/"),
        ("cat 'odd name/it", r"cat 'odd name/it'\''s' "),
        ('cat "odd name/it', 'cat "odd name/it\'s" '),
        ('cat "odd name/a', r'''cat "odd name/a\"b" '''),
        ("write data 'two words; cat odd n", None),
    ],
)
def test_names_with_blanks_and_quotes_are_completed_as_they_must_be_typed(prompt, typed, expected):
    prompt.onecmd("mkdir 'odd name'; write \"odd name/it's\" x; write 'odd name/a\"b' y")
    assert completed(prompt, typed) == ([] if expected is None else [expected])


def test_directories_of_the_host_are_completed_for_commit_and_save(prompt, tmp_path):
    (tmp_path / "target").mkdir()
    assert completed(prompt, f"commit {tmp_path}/ta") == [f"commit {tmp_path}/target/"]
    assert completed(prompt, f"save {tmp_path}/ta") == [f"save {tmp_path}/target/"]
    assert completed(prompt, f"cat {tmp_path}/ta") == []


def test_the_prompt_says_where_we_are_and_how_many_forks_deep(prompt):
    assert prompt.prompt == "/> "
    prompt.onecmd("cd dir; fork; fork")
    assert prompt.prompt == "/dir++> "


def test_a_line_that_fails_does_not_end_the_shell(prompt, capsys):
    assert prompt.onecmd("cat nothing; pwd") is False
    assert capsys.readouterr() == ("/\n", "cat: /nothing: No such file or directory\n")


def test_an_open_quotation_goes_on_on_the_next_line(prompt, capsys):
    assert prompt.onecmd("write new 'one") is False
    assert prompt.prompt == "… "
    assert prompt.onecmd("two'; cat new") is False
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("line", ["exit", "EOF"])
def test_exit_and_the_end_of_the_input_leave(prompt, line):
    assert prompt.onecmd(line) is True


def test_history_and_completion_work_on_a_terminal(lower, tmp_path):
    main_end, other_end = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb", "COLUMNS": "80"}
    command = [sys.executable, "-m", "overlayvfs", "shell", str(lower)]
    with subprocess.Popen(command, stdin=other_end, stdout=other_end, stderr=other_end, env=environment) as running:
        os.close(other_end)
        shown = b""

        def wait_for(text):
            nonlocal shown
            deadline = time.monotonic() + 60
            while text not in shown and time.monotonic() < deadline:
                shown += os.read(main_end, 4096)
            assert text in shown, shown
            shown = shown.partition(text)[2]

        wait_for(b"/> ")
        os.write(main_end, b"cat d/su\tg\n")
        wait_for(b"d/sub/g")
        wait_for(b"\r\ng\r\n")
        os.write(main_end, b"\x10\n")
        wait_for(b"cat d/sub/g")
        wait_for(b"\r\ng\r\n")
        os.write(main_end, b"exit\n")
        assert running.wait(60) == 0
    os.close(main_end)
    assert "cat d/sub/g" in (tmp_path / "overlayvfs" / "history").read_text()
