"""The command, called in this process."""

import pytest

from innerloop.cli import main


@pytest.fixture
def command(capsys):
    """`command(*words) -> (exit code, stdout, stderr)`."""

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def complaint(command):
    """The one sentence on stderr of a command that must fail with code 2, and say nothing else."""

    def run(*words):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert err.startswith("innerloop: ")
        assert err.count("\n") == 1
        return err

    return run
