"""Exit codes, and one line per failure."""

import pytest

from vlm_assets.cli.main import main, run_guarded
from vlm_assets.errors import ConfigError, TrainingError


def raising(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("Port 3000 is in use."), 2, "error: Port 3000 is in use.\n"),
        (TrainingError("loss is nan"), 1, "error: loss is nan\n"),
        (KeyboardInterrupt(), 130, "interrupted: everything is stopped, the same command goes on from here\n"),
    ],
)
def test_expected_errors_are_one_line(capsys, error, code, line):
    assert run_guarded(raising(error)) == code
    assert capsys.readouterr().err == line


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_guarded(raising(ZeroDivisionError()))


def test_an_unknown_command_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])
    assert "choose from" in capsys.readouterr().err
