"""Progress: plain lines in a log file, a bar on a terminal."""

import re

from data.base import terminal


def lines_of(total: int, interval: float, monkeypatch, capsys) -> list[str]:
    """What `total` steps print, a second apart by a clock of our own."""
    clock = iter(range(1000))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL_S", interval)
    with terminal.progress("Training nn", total) as shown:
        for step in range(total):
            shown.advance(f"loss {step}")
    return capsys.readouterr().out.splitlines()


def test_a_log_file_gets_the_first_step_one_line_an_interval_and_the_last(monkeypatch, capsys):
    lines = lines_of(25, 10.0, monkeypatch, capsys)
    assert [line.split(",")[0] for line in lines] == [f"Training nn {step}/25" for step in (1, 11, 21, 25)]
    assert "loss 10" in lines[1]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_the_time_left_is_that_of_the_pace_so_far(monkeypatch, capsys):
    """A step a second by the clock above: 14 of 25 are left after 11."""
    assert [line.rsplit(", ", 1)[1] for line in lines_of(25, 10.0, monkeypatch, capsys)] == [
        "24 s left",
        "14 s left",
        "4 s left",
        "0 s left",
    ]


def test_a_continued_run_counts_on_from_what_is_done(capsys):
    with terminal.progress("Training nn", 10, done=8) as shown:
        shown.advance()
        shown.advance()
    assert re.findall(r"(\d+)/10", capsys.readouterr().out) == ["9", "10"]


def test_quietly_a_log_file_gets_nothing(capsys):
    with terminal.quietly(), terminal.progress("Training nn", 1) as shown:
        shown.advance()
        terminal.tell("a result")
        print("a note")
    terminal.tell("after it")
    assert capsys.readouterr().out == "a note\nafter it\n"


def test_a_duration_has_a_fitting_unit():
    assert [terminal.duration(seconds) for seconds in (0.4, 99.4, 100, 5990, 12240)] == [
        *("0 s", "99 s", "2 min", "100 min", "3.4 h")
    ]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to say that this is a terminal
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress("Training nn", 3) as shown:
        shown.advance("loss 1", steps=3)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "loss 1" in out
    assert "\x1b[" in out
