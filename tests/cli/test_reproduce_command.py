import json

from innerloop.run_folder import RunFolder


def test_a_run_is_reproduced_and_a_changed_one_is_not(command, sinusoid_run, tmp_path):
    code, out, _ = command("reproduce", sinusoid_run, "--folder", tmp_path / "again")
    assert code == 0
    assert "Reproduced: the same bits" in out
    again = RunFolder(tmp_path / "again")
    lines = again.path.joinpath("metrics.jsonl").read_text()
    again.path.joinpath("metrics.jsonl").write_text(lines.replace('"step": 100', '"step": 101'))
    code, out, err = command("reproduce", again.path, "--json")
    verdict = json.loads(out)
    assert code == 1
    assert (verdict["same"], verdict["weights"], verdict["metrics"]) == (False, 0, 100)
    assert "200/200" in err


def test_what_is_no_run(complaint, tmp_path, sinusoid_run):
    assert "is not a run" in complaint("reproduce", tmp_path)
    (tmp_path / "config.json").write_text((sinusoid_run / "config.json").read_text())
    (tmp_path / "environment.json").write_text("[]")
    assert "does not name the devices" in complaint("reproduce", tmp_path)
