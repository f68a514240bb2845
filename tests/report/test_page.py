import html.parser
import re
from dataclasses import replace

import numpy as np
import pytest

from innerloop.io.files import new_output
from innerloop.io.text import with_interval
from innerloop.report import examples, run_page, settings_table
from innerloop.report.html_blocks import _img, _letter, folded, results_table

VOID = {"meta", "img", "br"}


class Balance(html.parser.HTMLParser):
    """Checks that every tag is closed, and collects what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(groups, tmp_path_factory):
    done = []
    out = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    run_page.write(groups, new_output(out, overwrite=False), done.append)
    assert done == [group.title for group in groups]
    return out.read_text()


def test_page_is_well_formed_and_self_contained(written):
    parsed = Balance()
    parsed.feed(written)
    assert parsed.open == []
    assert all(address.startswith(("data:image/", "#")) for address in parsed.loaded)
    assert "url(" not in written
    assert "@import" not in written


def test_page_shows_results_settings_and_environment(written, groups):
    parsed = Balance()
    parsed.feed(written)
    text = " ".join(parsed.text)
    for result in (groups[0].runs[0], groups[1].baselines[0]):
        assert with_interval(result.value, result.ci95, result.score) in text.replace("\xa0", " ")
    assert "untrained" in text
    assert "inner.learning_rate" in text
    assert "packages.jax" in text


def test_figures_are_saved_in_run_folders(written, runs):
    for run, names in ((runs[0], ("adaptation", "training", "wave-1", "wave-3")), (runs[2], ("adaptation",))):
        for name in names:
            assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            assert "<svg" in (run / "figures" / f"{name}.svg").read_text()[:2000]


def test_normalisation_column_appears_only_if_used(groups):
    assert ("normalisation" in results_table(groups[0]), "normalisation" in results_table(groups[1])) == (
        False,
        True,
    )


def test_names_are_escaped(groups):
    hostile = replace(groups[0].runs[0], label="<script>x</script>")
    shown = results_table(replace(groups[0], runs=[hostile]))
    shown += settings_table.config_table(replace(groups[0], runs=[hostile]))
    shown += folded(run_page._name(hostile), "")
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_settings_that_do_not_apply_are_left_out(groups):
    waves, glyphs = map(settings_table.config_table, groups)
    shown = ("data.protocol", "model.hidden", "inner.steps", "evaluation.queries")
    assert all(f"<td>{name}</td>" in waves for name in shown)
    hidden = ("rl.", "data.ways", "data.file", "model.filters", "inner.proximal", "evaluation.normalization")
    assert not any(f"<td>{name}" in waves for name in hidden)
    assert all(f"<td>{name}</td>" in glyphs for name in ("data.ways", "evaluation.normalization"))


def test_answers_are_marked_right_or_wrong(groups):
    run = groups[1].runs[0]
    (episode,) = examples.episodes(run, 1)
    assert list(episode.answers) == [0, 1, 2, 3]
    right = sum((answers == episode.labels).sum() for answers in episode.answers.values())
    drawn = run_page.episode_block(episode)
    assert drawn.count('class="mark right"') == right
    assert drawn.count('class="mark wrong"') == 20 - right
    assert sorted(episode.support_labels) == list(episode.support_labels)


def test_all_runs_get_the_same_episodes(groups):
    a, b = examples.episodes(groups[1].runs[0], 1)[0], examples.episodes(groups[1].baselines[0], 1)[0]
    np.testing.assert_array_equal(a.query, b.query)
    np.testing.assert_array_equal(a.support, b.support)


def test_answers_before_adaptation_match_model_outputs(groups):
    trained = groups[0].runs[0].trained
    import jax

    task = trained.experiment.held_out_tasks(queries=5).sample(jax.random.key(0))
    outputs = examples._answers_of(trained)(task)
    assert outputs.shape == (15, 5, 1)
    np.testing.assert_allclose(outputs[0], trained.params(task.query.inputs), atol=1e-6)


@pytest.mark.parametrize(("steps", "shown"), [(0, [0]), (3, [0, 1, 2, 3]), (50, None)])
def test_at_most_five_steps_are_shown(steps, shown):
    got = examples._shown_steps(steps, 5)
    assert got == (shown or got)
    assert len(got) <= 5
    assert (got[0], got[-1]) == (0, steps)


def test_drawings_are_inverted_and_photographs_are_not():
    import base64
    import io

    import PIL.Image

    def pixel(picture):
        data = re.search(r"base64,([^\"]*)", _img(picture, "x"))
        assert data is not None
        return PIL.Image.open(io.BytesIO(base64.b64decode(data[1]))).getpixel((0, 0))

    assert pixel(np.zeros((4, 4, 1))) == 255
    assert pixel(np.full((4, 4, 3), 0.2)) == (51, 51, 51)


def test_classes_beyond_z_are_numbered():
    assert (_letter(0), _letter(25), _letter(26)) == ("A", "Z", "27")


def test_runs_without_metrics_have_no_training_figure(groups):
    bare = replace(groups[0], runs=[replace(run, metrics=[]) for run in groups[0].runs])
    assert run_page.training_figure(bare) is None


@pytest.mark.parametrize(
    ("record", "what", "file"),
    [("metrics", "training curves", "metrics.jsonl"), ("environment", "environment", "environment.json")],
)
def test_missing_records_give_warning(groups, tmp_path, record, what, file):
    """The page lacks what they hold."""
    run_page._warn_of_missing_records(groups[0])
    run = groups[0].runs[0]
    bare = replace(
        run, trained=replace(run.trained, folder=tmp_path), **{record: type(getattr(run, record))()}
    )
    told = f"the report omits the {what} of MAML \\({tmp_path / file} is missing or empty\\)"
    with pytest.warns(UserWarning, match=told):
        run_page._warn_of_missing_records(replace(groups[0], runs=[bare]))


def test_a_chart_of_one_point_has_one_tick(groups):
    run = replace(groups[0].runs[0], metrics=[{"step": 5, "outer_loss": 4.3, "validation_loss": 4.2}])
    figure = run_page.training_figure(replace(groups[0], runs=[run]))
    assert figure is not None
    figure.draw_without_rendering()
    below = figure.axes[1]
    low, high = below.get_xlim()
    shown = [text.get_text() for text in below.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert shown == ["5"]


def test_training_without_validation_has_one_panel(groups):
    run = replace(
        groups[0].runs[0], metrics=[{"step": 5, "outer_loss": 4.3}, {"step": 10, "outer_loss": 4.1}]
    )
    figure = run_page.training_figure(replace(groups[0], runs=[run]))
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["outer loss"]
    assert figure.axes[0].get_xlabel() == "meta-steps"


def test_different_environments_get_separate_columns(groups):
    one, two = groups[0].runs
    assert "all runs" in settings_table.environment_table([one, two])
    other = replace(two, environment={**two.environment, "python": "9.9"})
    assert "<th>joint training</th>" in settings_table.environment_table([one, other])
    assert settings_table.environment_table([replace(one, environment={})]) == ""


def test_unwritable_run_folder_gives_warning(groups, tmp_path):
    (tmp_path / "figures").write_text("in the way")
    run = groups[0].runs[0]
    with pytest.warns(UserWarning, match="the figures are in the page, but .* cannot be written"):
        run_page._keep([replace(run, trained=replace(run.trained, folder=tmp_path))], {})
