"""One line of progress: how far, how fast, how long still. The rate of a resumed run is its own."""

import pytest

import vlm_serving.progress as progress
from vlm_serving.progress import Progress


class Clock:
    """Seconds on the monotonic clock, as the test says."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_tells_share_rate_and_time_left(clock: Clock):
    bar = Progress("import", 1000, lambda _: None)
    bar.advance(250)
    assert bar.line(clock.now_s + 5) == "import   25% 250/1,000 pictures  50 pictures/s  ETA 15 s"
    assert bar.line(clock.now_s + 5, "3 put aside").endswith("  ETA 15 s  3 put aside")


def test_the_last_line_tells_how_long_it_took(clock: Clock):
    lines: list[str] = []
    bar = Progress("import", 1000, lines.append)
    bar.advance(1000)
    clock.now_s += 4
    bar.done()
    assert lines == ["import  100% 1,000/1,000 pictures  250 pictures/s  in 4.0 s"]


def test_a_resumed_run_is_as_fast_as_itself(clock: Clock):
    """600 of an earlier run are done, and no sign of how fast this one is."""
    lines: list[str] = []
    bar = Progress("import", 1000, lines.append)
    bar.resume(600)
    assert lines == ["import  going on behind 600 pictures of an earlier run"]
    bar.advance(100)
    assert bar.line(clock.now_s + 10) == "import   70% 700/1,000 pictures  10 pictures/s  ETA 30 s"


def test_before_the_first_there_is_no_time_left_to_tell(clock: Clock):
    bar = Progress("import", 1000, lambda _: None)
    assert bar.line(clock.now_s + 2) == "import    0% 0/1,000 pictures  0 pictures/s  in 2.0 s"


def test_what_cannot_be_counted_beforehand_has_neither_share_nor_time_left(clock: Clock):
    bar = Progress("count", 0, lambda _: None, "rows")
    bar.advance(40)
    assert bar.line(clock.now_s + 2) == "count  40 rows  20 rows/s  in 2.0 s"


def test_lines_come_every_two_seconds_and_no_oftener(clock: Clock):
    lines: list[str] = []
    bar = Progress("import", 100, lines.append)
    for _ in range(50):
        clock.now_s += 0.5
        bar.advance()
    assert len(lines) == 12
    assert lines[0] == "import    4% 4/100 pictures  2 pictures/s  ETA 48 s"
