import json

import pytest

from innerloop.io.text import with_interval

FEW = ("--tasks", 20)


def test_json_output_is_a_single_object(command, glyph_run):
    code, out, err = command("evaluate", glyph_run, *FEW, "--json")
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert 0 <= record["accuracy"] <= 1
    assert record["ci95"] > 0
    assert (record["tasks"], record["normalization"]) == (20, "transductive")


def test_output_states_measurement_settings(command, sinusoid_run):
    code, out, _ = command("evaluate", sinusoid_run, *FEW, "--seed", 5, "--queries", 7)
    record = json.loads(command("evaluate", sinusoid_run, *FEW, "--seed", 5, "--queries", 7, "--json")[1])
    assert code == 0
    assert with_interval(record["loss"], record["ci95"], "loss") in out
    for words in ("20 test tasks", "7 queries", "seed 5", "trained for 200 meta-steps"):
        assert words in out
    assert "ormalisation" not in out  # the network has none
    assert record["queries"] == 7
    assert not {"ways", "normalization", "groups", "queries_per_class"} & record.keys()


def test_output_names_normalisation_mode(command, glyph_run):
    assert "normalisation support" in command("evaluate", glyph_run, *FEW, "--normalization", "support")[1]


def test_weights_file_and_run_folder_give_same_loss(command, sinusoid_run):
    of_run = json.loads(command("evaluate", sinusoid_run, *FEW, "--json")[1])
    of_file = json.loads(command("evaluate", sinusoid_run / "weights.safetensors", *FEW, "--json")[1])
    assert of_run["loss"] == of_file["loss"]


def test_shots_option_overrides_training_shots(command, complaint, glyph_run):
    """More examples of each class are other tasks, and better ones; policies have no such thing."""
    one, five = (json.loads(command("evaluate", glyph_run, *FEW, "--shots", n, "--json")[1]) for n in (1, 5))
    assert (one["shots"], five["shots"]) == (1, 5)
    assert five["curve"]["loss"]["mean"][-1] < one["curve"]["loss"]["mean"][-1]
    assert "--shots: policies learn from" in complaint("evaluate", "navigation-maml-trpo", "--shots", 5)


def test_rotations_option_is_rejected_for_unrotated_classes(complaint, glyph_run):
    words = complaint("evaluate", glyph_run, "--rotations", "no")
    assert "--rotations: its classes are not rotated in training either; leave it out." in words


def test_data_folder_is_rejected_for_built_in_data(complaint, glyph_run, tmp_path):
    for words in (("evaluate",), ("analyze",), ("adapt", tmp_path)):
        told = complaint(words[0], glyph_run, *words[1:], "--data-folder", tmp_path)
        assert told.startswith(
            "innerloop: --data-folder: the run's data set `glyphs` is not read from a folder or file"
        )


def test_normalization_all_measures_every_mode(command, glyph_run):
    code, out, _ = command("evaluate", glyph_run, *FEW, "--normalization", "all", "--json")
    record = json.loads(out)
    assert code == 0
    assert list(record["modes"]) == ["transductive", "inductive", "support"]
    assert record["modes"]["transductive"]["curve"] == record["curve"]
    assert len({str(mode["curve"]) for mode in record["modes"].values()}) == 3


def test_mode_is_rejected_without_batch_normalisation(complaint, sinusoid_run):
    told = complaint("evaluate", sinusoid_run, *FEW, "--normalization", "all")
    assert "--normalization: the network has no batch normalisation, got all; leave it out." in told


def test_output_shows_all_normalisation_modes(command, glyph_run):
    out = command("evaluate", glyph_run, *FEW, "--normalization", "all", "--split", "validation")[1]
    assert "accuracy, inductive" in out
    assert "normalisation transductive, inductive, support" in out
    assert "20 validation tasks" in out


def test_untrained_or_invalid_sources_are_rejected(complaint, tmp_path, sinusoid_run):
    assert "did you mean" in complaint("evaluate", "omniglot-5way-1shot-mam")
    assert "is not a run" in complaint("evaluate", tmp_path)
    for word in ("compare", "report"):
        assert f"give the runs in it, such as {sinusoid_run}." in complaint(word, sinusoid_run.parent)
    (tmp_path / "config.json").write_bytes((sinusoid_run / "config.json").read_bytes())
    assert f"innerloop train --resume {tmp_path}" in complaint("evaluate", tmp_path)
    (tmp_path / "weights.safetensors").write_bytes((sinusoid_run / "weights.safetensors").read_bytes()[:500])
    assert "holds no trained weights" in complaint("evaluate", tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--tasks", 1), ("--steps", -1), ("--shots", 0), ("--queries", 0), ("--seed", -1), ("--seed", 2**32)],
)
def test_out_of_range_numbers_are_rejected(complaint, option, value):
    assert f"{option}: must be" in complaint("evaluate", "anything", option, value)


def test_unknown_mode_exits_with_2(command):
    assert command("evaluate", "x", "--normalization", "magic")[0] == 2


def test_progress_goes_to_stderr_only(command, sinusoid_run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, err = command("evaluate", sinusoid_run, *FEW, "--json")
    assert json.loads(out)["tasks"] == 20
    assert "sinusoid-maml" in err
