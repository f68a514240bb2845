import json
import re
import signal
from pathlib import Path

import pytest

from innerloop.cli import progress
from innerloop.cli.train_arguments import TrainRL, parse_with_preset
from innerloop.cli.train_plan import plan
from innerloop.config.presets.registry import preset
from innerloop.config.serialization import to_json
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder

TINY = ("--outer.meta-steps", "2", "--outer.log-every", "1", "--evaluation.validation-tasks", "4")


def test_run_saves_weights_and_suggests_evaluate(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("train", "sinusoid-joint", *TINY)
    assert code == 0
    assert (tmp_path / "runs/sinusoid-joint/weights.safetensors").is_file()
    assert re.search(r"Trained: validation loss \d+\.\d+\.", out)
    assert "Memory" not in out  # there is nothing to say
    assert "innerloop evaluate runs/sinusoid-joint" in out


def test_overrides_reach_the_config(sinusoid_run):
    config = RunFolder(sinusoid_run).config()
    assert (config.name, config.outer.meta_steps, config.evaluation.steps) == ("sinusoid-maml", 200, 2)


def test_existing_run_folder_is_rejected(complaint, sinusoid_run, sinusoid_words):
    said = complaint("train", *sinusoid_words, "--folder", sinusoid_run)
    assert f"innerloop train --resume {sinusoid_run}`, where --outer.meta-steps may make it longer" in said


def signalled(monkeypatch, number):
    """Send a signal to the next training run after its first block."""
    asked = []

    def ask_once(metrics):
        if not asked:
            asked.append(signal.raise_signal(number))
        return ""

    monkeypatch.setattr(progress, "in_words", ask_once)
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_sigterm_exits_with_143(command, tmp_path, monkeypatch):
    signalled(monkeypatch, signal.SIGTERM)
    assert command("train", "sinusoid-joint", *TINY, "--folder", tmp_path / "run")[0] == 143


def test_resumed_run_is_bit_identical(command, sinusoid_run, sinusoid_words, tmp_path, monkeypatch):
    signalled(monkeypatch, signal.SIGINT)
    got, out, _ = command("train", *sinusoid_words, "--folder", tmp_path / "run")
    assert got == 130
    assert "Stopped at meta-step 100" in out
    again = re.search(r"innerloop (train --resume .*)", out)
    assert again is not None
    assert command(*again[1].split())[0] == 0
    folders = (sinusoid_run, tmp_path / "run")
    whole, parted = (weights.load(folder / "weights.safetensors")[0] for folder in folders)
    assert all((whole[name] == parted[name]).all() for name in whole)
    series = [[record["outer_loss"] for record in RunFolder(folder).metrics()] for folder in folders]
    assert series[0] == series[1]


def test_interrupted_seeds_suggest_rerunning_same_command(command, tmp_path, monkeypatch):
    signalled(monkeypatch, signal.SIGINT)
    code, out, _ = command("train", "sinusoid-joint", *TINY, "--seeds", "0,1", "--folder", tmp_path)
    assert code == 130
    assert "everything is saved. Run the same command again to continue." in out
    assert "--resume" not in out


def test_resuming_finished_run_is_noop(command, sinusoid_run):
    """Options that are the run's own may be given again."""
    before = weights.load(sinusoid_run / "weights.safetensors")[0]
    code, out, _ = command("train", "sinusoid-maml", "--resume", sinusoid_run, "--outer.meta-steps", 200)
    assert code == 0
    assert "Was already finished: validation loss" in out
    assert "Trained" not in out
    after = weights.load(sinusoid_run / "weights.safetensors")[0]
    assert all((before[name] == after[name]).all() for name in before)


def test_resume_rejects_missing_or_invalid_run(complaint, tmp_path):
    assert "--resume: must name an existing folder" in complaint("train", "--resume", tmp_path / "none")
    assert "is not a run" in complaint("train", "--resume", tmp_path)


def test_resume_rejects_changed_settings(complaint, sinusoid_run, tmp_path):
    told = complaint("train", "--resume", sinusoid_run, "--seed", 3)
    assert told.startswith("innerloop: --seed: the resumed run keeps its own setting, 0, got 3; ")
    told = complaint("train", "--resume", sinusoid_run, "--outer.log-every", 50)
    assert told.startswith(
        "innerloop: --outer.log-every: the resumed run keeps its own setting, 100, got 50; "
    )
    told = complaint("train", "--resume", sinusoid_run, "--outer.meta-steps", 100)
    assert told.startswith("innerloop: --outer.meta-steps: the run in ")
    assert told.endswith("has already taken 200 meta-steps, got 100; give as many or more.\n")
    assert "leave out --folder" in complaint("train", "--resume", sinusoid_run, "--folder", tmp_path)
    assert "is of preset sinusoid-maml" in complaint("train", "sinusoid-anil", "--resume", sinusoid_run)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("sinusoid-maml", "--data.ways", "5"),
            "--data.ways: the data set `sinusoid` does not read it, got 5",
        ),
        (
            ("sinusoid-maml", "--model.filters=64"),
            "--model.filters: the network `mlp` does not read it, got 64;",
        ),
        (("glyphs-5way-1shot-maml", "--model.hidden", "4"), "the network `conv4` does not read it, got (4,)"),
        (("sinusoid-maml", "--inner.proximal", "1"), "--inner.proximal: MAML does not use it, got 1.0"),
        (
            ("sinusoid-maml", "--inner.minibatch", "11"),
            "must be at most the size of the support set, 10, got 11",
        ),
        (("sinusoid-maml", "--evaluation.minibatch", "11"), "--evaluation.minibatch: must be at most"),
        (
            ("sinusoid-maml", "--evaluation.normalization", "transductive"),
            "--evaluation.normalization: the network has no batch normalisation, got transductive",
        ),
        (
            ("sinusoid-maml", "--evaluation.no-rotations"),
            "--evaluation.rotations: classes are not rotated in training either, got False; leave it out.",
        ),
        (("navigation-maml-trpo", "--evaluation.queries", "3"), "policies have no queries, got 3"),
        (
            ("sinusoid-maml", "--data.dataset", "navigation"),
            "--model.scale: a policy must be a plain MLP, got 0",
        ),
    ],
)
def test_settings_without_effect_are_refused(complaint, words, told):
    """Also with their default values, if they are given."""
    assert told in complaint("train", *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("glyphs-5way-1shot-maml", "--data.folder", "mine"),
            "--data.folder: the data set `glyphs` does not read it, got 'mine'; leave it out, or give --data.dataset "
            "mini_imagenet or folder.",
        ),
        (("sinusoid-maml", "--data.file", "x.csv"), "give --data.dataset table."),
        (("sinusoid-maml", "--data.flip"), "--data.flip: the data set `sinusoid` does not read it, got True"),
        (
            ("navigation-maml-trpo", "--data.shots", "5"),
            "--data.shots: the data set `navigation` does not read it",
        ),
        (("glyphs-5way-1shot-maml", "--data.split", "x", "--seeds", "0,1"), "give --data.dataset omniglot."),
        (("pictures-5way-1shot-maml", "--data.split", "x"), "or sort the classes into the folders train,"),
        (
            ("omniglot-5way-1shot-maml", "--data.split", "x"),
            "--data.split: `split` is unknown, got 'x'; choose",
        ),
        (
            ("pictures-5way-1shot-maml",),
            "--data.folder: the data set `folder` needs a folder of images; give",
        ),
        (
            ("pictures-5way-1shot-maml", "--data.folder", "no"),
            "--data.folder: must name an existing folder, got",
        ),
        (("table-maml", "--data.task", "a", "--data.y", "b"), "--data.file: a table needs a file"),
        (
            ("sinusoid-maml", "--model.start", "sinusoid-mam"),
            "--model.start: there is no such preset, folder or",
        ),
    ],
)
def test_invalid_data_settings_are_rejected(complaint, words, told):
    assert told in complaint("train", *words)


def test_options_come_from_preset_not_folder_name():
    arguments = parse_with_preset(("--folder", "sinusoid-maml", "navigation-maml-trpo", "--rl.horizon", "50"))
    assert isinstance(arguments, TrainRL)
    assert (arguments.preset, arguments.rl.horizon, arguments.rl.reward) == (
        "navigation-maml-trpo",
        50,
        "distance",
    )


def test_rl_options_work_with_rl_dataset_override():
    words = ("sinusoid-maml", "--data.dataset", "navigation", "--rl.horizon", "50")
    arguments = parse_with_preset(words)
    assert isinstance(arguments, TrainRL)
    assert (arguments.data.dataset, arguments.rl.horizon) == ("navigation", 50)


def test_rl_options_are_rejected_for_supervised_datasets(complaint):
    for words in (("sinusoid-maml",), ("navigation-maml-trpo", "--data.dataset", "sinusoid")):
        assert "--rl.horizon: is a setting of reinforcement learning; leave it out" in complaint(
            "train", *words, "--rl.horizon", "50"
        )


def test_resumed_policy_keeps_its_rl_settings(complaint, tmp_path):
    config = preset("navigation-maml-trpo")
    (tmp_path / "config.json").write_text(to_json(config))
    told = complaint("train", "--resume", tmp_path, "--rl.horizon", 50)
    assert told.startswith("innerloop: --rl.horizon: the resumed run keeps its own setting, 100, got 50; ")
    words = ("--resume", str(tmp_path), "--rl.horizon", "100")
    assert plan(parse_with_preset(words), words) == (tmp_path, config)


def test_resume_cannot_extend_run_with_step_size_decay(complaint, tmp_path):
    (tmp_path / "config.json").write_text(to_json(preset("glyphs-5way-1shot-maml")))
    told = complaint("train", "--resume", tmp_path, "--outer.meta-steps", 60_000)
    assert "--outer.meta-steps: the outer step size decays to 0 over the" in told
    assert f"or start a new run from its weights: --model.start {tmp_path}." in told


def test_unknown_and_missing_presets(complaint):
    assert "did you mean sinusoid-maml" in complaint("train", "sinusoid-mml")
    assert "needs a preset" in complaint("train")


@pytest.mark.parametrize(
    "words", [("--outer.meta-steps", "many"), ("--inner.optimizer", "lbfgs"), ("--x.y", "1")]
)
def test_invalid_options_exit_with_2(command, words):
    code, _, err = command("train", "sinusoid-maml", *words)
    assert code == 2
    assert words[0] in err


def test_option_value_is_not_mistaken_for_preset(tmp_path, monkeypatch):
    """It is not the preset, wherever it stands."""
    monkeypatch.chdir(tmp_path)
    words = ("--folder", "sinusoid-anil", "sinusoid-joint", *TINY)
    folder, config = plan(parse_with_preset(words), words)
    assert (folder, config.name, config.algorithm) == (Path("sinusoid-anil"), "sinusoid-joint", "joint")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--outer.clip", "inf"), "--outer.clip: must be a finite number, got inf"),
        (("--inner.learning-rate", "nan"), "--inner.learning-rate: must be a finite number, got nan"),
        (("--evaluation.validation-tasks", "1"), "--evaluation.validation-tasks: must be 2 or more, got 1"),
        (("--model.hidden", "0"), "--model.hidden: each must be 1 or more, got (0,)"),
        (("--seed", str(2**70)), "must be 4 294 967 295 or less"),
        (
            ("--outer.meta-steps", "300001", "--outer.log-every", "1"),
            "--outer.log-every: a run of 300 001 meta-steps would log 300 001 lines, got 1; log less often: 300 000 "
            "lines is the maximum",
        ),
    ],
)
def test_out_of_range_settings_fail_before_training(command, tmp_path, words, wrong):
    """In one sentence."""
    code, _, err = command("train", "sinusoid-maml", *words, "--folder", tmp_path / "run")
    assert code == 2
    assert wrong in err
    assert not (tmp_path / "run").exists()


def test_runs_without_meta_steps_or_validation_succeed(command, tmp_path):
    none = ("--outer.meta-steps", "0", "--outer.decay", "cosine", *TINY[2:])
    assert command("train", "sinusoid-maml", *none, "--folder", tmp_path / "none")[0] == 0
    never = ("--outer.validate-every", "0", "--folder", tmp_path / "never")
    assert command("train", "sinusoid-maml", *TINY, *never)[0] == 0
    assert not any("validation_loss" in record for record in RunFolder(tmp_path / "never").metrics())


def test_divergence_error_does_not_mention_missing_checkpoint(refused, tmp_path):
    said = refused(
        "train", "sinusoid-maml", *TINY, "--inner.learning-rate", "1e30", "--folder", tmp_path / "run"
    )
    assert "diverged" in said
    assert "checkpoint" not in said


def test_failed_start_leaves_no_folder(command, tmp_path):
    code, out, said = command(
        "train", "sinusoid-maml", *TINY, "--outer.chunk", "7", "--folder", tmp_path / "run"
    )
    assert (code, out) == (2, "")
    assert "--outer.meta-batch must be a multiple of devices x --outer.chunk, got" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--algorithm", "cavia"), "CAVIA: cannot learn from such tasks"),
        (("--algorithm", "reptile"), "reptile: has no query loss for this outer step"),
        (("--inner.steps", "0"), "inner.steps: maml needs an inner step"),
        (("--inner.derivative", "mixed"), "inner.derivative: the outer step trpo needs forward mode"),
    ],
)
def test_incompatible_settings_are_reported_first(command, tmp_path, words, told):
    """Even where the folder holds a run."""
    (tmp_path / "config.json").write_text("{}")
    code, out, said = command("train", "navigation-maml-trpo", *words, "--folder", tmp_path)
    assert (code, out) == (2, "")
    assert told in said


def test_uncreatable_run_folder_is_reported(command, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/run"):
        _, out, err = command("train", "sinusoid-maml", *TINY, "--folder", tmp_path / place)
        assert out == ""
        assert "cannot be written (a part of the path is not a folder); give another path." in err


def test_resume_reports_broken_config(complaint, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in complaint("train", "--resume", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"nmae": "x"}))
    assert "unknown field 'nmae'" in complaint("train", "--resume", tmp_path)


def test_full_help_lists_all_settings(command):
    code, out, _ = command("train", "sinusoid-reptile", "-H")
    assert code == 0
    assert "--inner.minibatch" in out
    assert re.search(r"default: 30000", out)
