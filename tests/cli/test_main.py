import subprocess
import sys
from pathlib import Path

import jax
import pytest

from innerloop import cli
from innerloop.errors import InnerloopError
from innerloop.io.text import counted, shell_command, with_interval
from innerloop.parallel.cpu_devices import cores


def test_no_arguments_lists_commands(command):
    code, out, _ = command()
    assert code == 0
    assert all(f"  {name} " in out for name in ("list", "train", "evaluate", "adapt", "report", "quickstart"))
    assert command("--help")[1] == out


def test_version(command):
    code, out, _ = command("--version")
    assert (code, out.split()[0]) == (0, "innerloop")


def test_misspelt_command_suggests_nearest_match(complaint):
    assert "did you mean evaluate?" in complaint("evalute", "x")
    assert "choose among: list, train" in complaint("zzzz")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_command_help_fits_one_screen(name, command):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"usage: innerloop {name} " in out
    assert out.count("\n") < 45
    assert max(map(len, out.splitlines())) <= 80
    assert "(default: )" not in out


def test_help_wraps_to_terminal_width(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    told = command("train", "navigation-maml-trpo", "-H")[1]
    assert "Kubernetes tell which one; otherwise give\n" not in told
    assert max(map(len, told.splitlines())) <= 60
    assert "{None}" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("list", "--nonsense"), "list: unknown option, got --nonsense; see `innerloop list --help`."),
        (("evaluate",), "evaluate: needs SOURCE; see `innerloop evaluate --help`."),
        (("adapt",), "adapt: needs SOURCE and DATA; see `innerloop adapt --help`."),
        (("evaluate", "runs/a", "--tasks"), "--tasks: needs a value; see `innerloop evaluate --help`."),
        (("evaluate", "runs/a", "runs/b"), "evaluate: unexpected argument, got runs/b; see"),
        (
            ("evaluate", "runs/a", "--split", "x"),
            "--split: must be one of 'test', 'train', 'validation', got 'x'.",
        ),
        (("evaluate", "runs/a", "--split", "tset"), "got 'tset'; did you mean test?"),
        (
            ("analyze", "x", "--only", "freeze,nil"),
            "got 'freeze,nil'; separate values by spaces, not by commas.",
        ),
        (
            ("export", "x", "--suport", "y", "--out", "z"),
            "unknown option, got --suport; did you mean --support?",
        ),
        (("list", "--json", "--json"), "--json: is given more than once; give it once."),
        (("train", "sinusoid-maml", "--seed", "1", "--seed=2"), "--seed: is given more than once; give it"),
        (("train", "x", "--data.flip", "--data.no-flip"), "--data.flip: is given more than once; give it"),
        (("analyze", "x", "--only", "nil", "--only", "freeze"), "--only: is given more than once; give it"),
        (("evaluate", "--tsks=3"), "evaluate: unknown option, got --tsks; did you mean --tasks?"),
        (("train", "sinusoid-maml", "--fold", "x"), "got --fold; did you mean --data.folder or --folder?"),
        (("evaluate", "runs/a", "--tasks", "all"), "--tasks: must be a whole number, got 'all'; see"),
        (("train", "sinusoid-maml", "--model.hidden", "a"), "--model.hidden: cannot be read, got 'a'; see"),
        (
            ("train", "sinusoid-maml", "--model.hidden"),
            "--model.hidden: needs a value; give one or more, or leave",
        ),
        (
            ("train", "sinusoid-maml", "--model.hidden", "--seed", "1"),
            "--model.hidden: needs a value; give one or more, or leave it out.",
        ),
        (
            ("train", "sinusoid-maml", "--rl.trajectories", "5"),
            "--rl.trajectories: is a setting of reinforcement learning; leave it out, or name a preset such as",
        ),
        (("train", "--rl.trajectories", "5"), "train: needs a preset; name one"),
        (("reproduce", "sinusoid-maml"), "sinusoid-maml: there is no such folder; give a run's folder."),
        (("completion", "bsh"), "must be one of 'bash', 'fish', 'zsh', got 'bsh'; did you mean bash?"),
        (("adapt", "runs/a", "x", "--ink", "blue"), "--ink: must be one of 'dark', 'light', got 'blue'."),
        (
            ("train", "sinusoid-maml", "--outer.meta-steps", "abc"),
            "--outer.meta-steps: must be a whole number, got 'abc'; see `innerloop train PRESET -H`.",
        ),
        (("train", "sinusoid-maml", "--outer.clip", "x"), "--outer.clip: must be a number, got 'x'; see"),
        (("train", "sinusoid-maml", "--folder", ""), "--folder: must name a file or folder, got ''."),
        (("train", "--resume="), "--resume: must name a file or folder, got ''."),
        (("evaluate", ""), "evaluate: must name a file or folder, got ''."),
        (("evaluate", "x", "--data-folder", ""), "--data-folder: must name a file or folder, got ''."),
        (("adapt", "x", "y", "--query", "a.png", ""), "adapt: must name a file or folder, got ''."),
        (
            ("train", "sinusoid-maml", "--outer.meta-stepz", "5"),
            "train: unknown option, got --outer.meta-stepz; did you mean --outer.meta-steps?",
        ),
    ],
)
def test_invalid_arguments_give_one_line_error(complaint, words, told):
    assert told in complaint(*words)


def test_help_and_list_do_not_import_jax():
    script = (
        "import sys; from innerloop.cli import main; main(['list', 'sinusoid']); main(['train', '--help']);"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_python_m_innerloop_runs_command():
    done = subprocess.run([sys.executable, "-m", "innerloop", "lst"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean list?" in done.stderr


def raising(error):
    def dispatch(argv):
        raise error

    return dispatch


def test_keyboard_interrupt_exits_with_130(command, monkeypatch):
    monkeypatch.setattr(cli, "dispatch", raising(KeyboardInterrupt()))
    assert command("list")[0] == 130


def test_file_error_gives_one_line_message(complaint, monkeypatch):
    monkeypatch.setattr(cli, "dispatch", raising(PermissionError(13, "Permission denied", "runs/x")))
    assert complaint("list") == "innerloop: runs/x: Permission denied.\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            InnerloopError("outer.meta_batch", "is odd", hint="lower `rl.max_kl`"),
            "--outer.meta-batch: is odd; lower --rl.max-kl.",
        ),
        (
            InnerloopError("x/data.json", "is odd", hint="then `resume`"),
            "x/data.json: is odd; then --resume.",
        ),
        (InnerloopError("config.json", "is odd: inner.steps"), "config.json: is odd: inner.steps."),
    ],
)
def test_errors_name_settings_as_options(error, words, complaint, monkeypatch):
    monkeypatch.setattr(cli, "dispatch", raising(error))
    assert complaint("list") == f"innerloop: {words}\n"


def test_internal_errors_propagate(monkeypatch):
    monkeypatch.setattr(cli, "dispatch", raising(OSError("no file named")))
    with pytest.raises(OSError, match="no file named"):
        cli.main(["list"])


def test_closed_pipe_prints_no_traceback():
    script = f"{sys.executable} -m innerloop list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_invalid_device_counts_are_rejected(complaint):
    jax.devices()  # starts JAX
    assert "must be 1 or more" in complaint("evaluate", "x", "--devices", "0")
    assert "JAX has started already" in complaint("evaluate", "x", "--devices", "77")


def test_cores_works_without_sched_getaffinity(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert cores() >= 1


@pytest.mark.parametrize(
    ("mean", "ci95", "name", "words"),
    [
        (0.98765, 0.00123, "accuracy", "98.77 ± 0.12 %"),
        (0.65432, 0.116, "loss", "0.65 ± 0.12"),
        (12.3, 1.23, "loss", "12.3 ± 1.2"),
        (0.5, 0.0, "loss", "0.5000 ± 0.0000"),
    ],
)
def test_with_interval_formats_mean_and_interval(mean, ci95, name, words):
    assert with_interval(mean, ci95, name) == words


def test_counted_pluralizes_and_groups_digits():
    assert (counted(1, "step"), counted(12345, "step")) == ("1 step", "12 345 steps")
    assert counted(2, "query", "queries") == "2 queries"


def test_shell_command_quotes_arguments():
    assert shell_command("evaluate", Path("runs/a")) == "innerloop evaluate runs/a"
    assert shell_command("compare", Path("my runs"), "it's") == """innerloop compare 'my runs' 'it'"'"'s'"""
