"""The figures: every one is described, what they show agrees with what is known, and the files do not change."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jumar.errors import DamagedFile, UsageError
from jumar.figures import (
    clipping,
    control,
    critics,
    fields,
    gradients,
    levels,
    off_policy,
    tasks,
    trust_regions,
    updates,
)
from jumar.figures.drawing import field, panels, svg
from jumar.figures.figure import Figure, data_file, picture
from jumar.figures.registry import FIGURES, find, in_order

# -- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_figure_says_what_it_is_and_where_it_is_from(figure: Figure) -> None:
    assert re.fullmatch(r"12\.\d|[a-z]+(-[a-z]+)*", figure.name)
    assert figure.title
    assert not figure.title.endswith(".")
    assert figure.source
    assert len(figure.caption) > 80
    assert figure.caption.endswith((".", ".)"))
    assert figure.slow == ("{steps}" in figure.caption)


def test_all_figures_of_the_book_are_there() -> None:
    assert {name for name in FIGURES if name.startswith("12.")} == {f"12.{i}" for i in range(1, 8)}


def test_figures_are_found_by_what_people_type() -> None:
    assert find("12.6") is find("Figure 12.6") is find("fig-12.6") is find("12_6") is FIGURES["12.6"]
    assert find("sigmoid_policy") is FIGURES["sigmoid-policy"]
    with pytest.raises(UsageError, match="did you mean bernoulli"):
        find("bernouli")


def test_all_leaves_out_what_trains_and_a_name_counts_once() -> None:
    every = in_order(["all"])
    assert {figure.name for figure in FIGURES.values()} - {figure.name for figure in every} == {
        "temperatures",
        "overestimation",
    }
    assert [figure.name for figure in in_order(["12.6", "bernoulli", "12.6"])] == ["12.6", "bernoulli"]


def test_a_figure_refuses_what_it_has_no_use_for() -> None:
    with pytest.raises(UsageError, match=r"figure 12\.6 trains nothing; leave --steps 10 out"):
        find("12.6").data(steps=10)
    with pytest.raises(UsageError, match=r"figure 12\.6 reads no file; leave --from results.json out"):
        find("12.6").data(path=Path("results.json"))


def test_the_caption_says_how_long_a_training_was() -> None:
    figure = find("temperatures")
    assert "20,000 steps" in figure.words()
    assert "1,500 steps" in figure.words(1_500)
    assert json.loads(data_file(figure, {}, 1_500))["caption"] == figure.words(1_500)


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_same_data_make_the_same_bytes() -> None:
    figure = find("12.6")
    data = figure.data()
    drawn = picture(figure, data, ".svg")
    assert drawn == picture(figure, data, ".svg")
    assert drawn.startswith(b"<?xml")
    assert not re.search(rb"<dc:date>|<text", drawn)  # no date, and texts as outlines
    assert re.search(rb"fill: ?#ffffff", drawn)
    image = picture(figure, data, ".png")
    assert image.startswith(b"\x89PNG")
    assert image == picture(figure, data, ".png")


def test_identifiers_do_not_depend_on_the_last_digits_of_the_layout() -> None:
    figure = find("sigmoid-policy")  # whose panels were placed with other last digits at the second time
    data = figure.data()
    first, *others = (picture(figure, data, ".svg") for _ in range(3))
    assert others == [first, first]
    named = re.findall(rb'id="([^"]*)"', first)
    assert len(set(named)) == len(named)
    assert set(re.findall(rb'(?:url\(#|href="#)([^")]*)', first)) <= set(named)


def test_the_data_are_json_without_numbers_that_json_lacks() -> None:
    figure = find("12.6")
    text = data_file(figure, {"a": np.array([1.0, np.nan]), "b": ["x"], "c": np.arange(2)})
    content = json.loads(text)
    assert content["data"] == {"a": [1.0, None], "b": ["x"], "c": [0, 1]}
    assert [content[key] for key in ("figure", "title", "source", "caption")] == [
        figure.name,
        figure.title,
        figure.source,
        figure.caption,
    ]


# -- what they show ---------------------------------------------------------------------------------------------------


def test_figure_12_2_the_natural_gradient_points_to_the_optimum() -> None:
    data = fields.fields()
    np.testing.assert_allclose(data["theta_1"][::2], [-2.0, -1.5, -1.0, -0.5, 0.0])
    rows = [0, 1, 3, 5, 7]
    np.testing.assert_allclose(data["theta_2"][rows], [0.05, 0.1, 0.2, 0.3, 0.4])
    natural, true = (np.asarray(data[f"cosine_{name}"])[np.ix_(rows, range(0, 9, 2))] for name in ("natural", "true"))
    np.testing.assert_allclose(
        [natural.min(), natural.mean(), true.min(), true.mean()], [0.962, 0.992, 0.395, 0.790], atol=5e-4
    )


def test_figure_12_3_the_natural_step_promises_more_at_the_same_divergence() -> None:
    data = gradients.natural_direction()
    fisher, bound = data["fisher"], gradients.CONSTRAINED_BOUND
    for step in (data["step_along_gradient"], data["natural_step"], *data["ellipse"][::40]):
        assert 0.5 * step @ fisher @ step == pytest.approx(bound)
    assert data["gains"][1] > 1.2 * data["gains"][0]


def test_figure_12_4_the_line_search_halves_the_step_until_the_divergence_is_within_the_bound() -> None:
    data = updates.line_search()
    points, divergences = data["points"], data["divergences"]
    steps = points - data["theta"]
    np.testing.assert_allclose(steps[1:], 0.5 * steps[:-1])
    np.testing.assert_allclose(data["new_theta"], points[-1])
    assert (divergences[:-1] > 1.0).all()
    assert divergences[-1] <= 1.0
    assert len(points) > 1


def test_figure_12_6_has_the_three_objectives() -> None:
    data = clipping.clamped_objectives()
    at = [data["ratio"].searchsorted(w - 1e-9) for w in (0.5, 1.0, 1.5)]
    for name, expected in {
        "original_positive": [0.5, 1.0, 1.5],
        "clamped_positive": [0.8, 1.0, 1.2],
        "lower_bound_positive": [0.5, 1.0, 1.2],
        "original_negative": [-0.5, -1.0, -1.5],
        "clamped_negative": [-0.8, -1.0, -1.2],
        "lower_bound_negative": [-0.8, -1.0, -1.5],
    }.items():
        np.testing.assert_allclose(data[name][at], expected, err_msg=name)


def test_the_clipped_objective_has_no_gradient_only_where_a_step_would_go_on() -> None:
    data = clipping.clip_terms()
    np.testing.assert_allclose(data["slope_positive"], np.where(data["ratio"] > 1.2, 0.0, 1.0), atol=1e-12)
    np.testing.assert_allclose(data["slope_negative"], np.where(data["ratio"] < 0.8, 0.0, -1.0), atol=1e-12)


def test_equal_steps_of_the_parameter_change_the_policy_unequally() -> None:
    data = gradients.sigmoid_policy()
    np.testing.assert_allclose(data["probabilities"], [0.982014, 0.880797, 0.5], atol=1e-6)
    first = 0.982014 * np.log(0.982014 / 0.880797) + 0.017986 * np.log(0.017986 / 0.119203)
    np.testing.assert_allclose(data["divergences"][0], first, atol=1e-5)
    assert data["divergences"][1] > 4 * data["divergences"][0]


def test_the_natural_gradient_of_two_actions_is_the_same_everywhere() -> None:
    data = gradients.bernoulli()
    np.testing.assert_allclose(data["natural_gradient"], 99.0)
    middle = len(data["theta"]) // 2
    np.testing.assert_allclose([data["gradient"][middle], data["fisher"][middle]], [24.75, 0.25])


def test_balls_of_the_divergence_grow_with_the_deviation() -> None:
    data = trust_regions.manifold()
    spans = np.ptp(data["equal_divergence"], axis=1)
    ratios = spans / trust_regions.CENTRES[:, 1:]
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:1], ratios.shape), rtol=2e-3)
    largest = data["largest_divergences"]
    assert largest[0] / largest[2] == pytest.approx(80, rel=0.1)


def test_edges_are_found_on_rays() -> None:
    circle = levels.edge(lambda x: np.sum(x**2, -1), np.zeros(2), 0.25, 2.0)
    np.testing.assert_allclose(np.linalg.norm(circle, axis=-1), 0.5, atol=1e-5)
    unbounded = levels.edge(lambda x: np.zeros(len(x)), np.array([1.0, 0.0]), 1.0, 2.0)
    np.testing.assert_allclose(np.linalg.norm(unbounded - [1.0, 0.0], axis=-1), 2.0)


def test_the_best_choice_by_the_weight_of_its_entropy() -> None:
    data = critics.entropy_weights()
    np.testing.assert_allclose(data["probabilities"][2], [0.04334, 0.18084, 0.75460, 0.02122], atol=5e-6)


def test_the_printed_mismatch_bound_is_above_the_gain_and_the_right_one_below() -> None:
    data = off_policy.mismatch()
    np.testing.assert_allclose([data["gain"][-1], data["surrogate"][-1]], [-11.21, -7.5], atol=0.01)
    np.testing.assert_allclose([data["lower_bound"][-1], data["printed_bound"][-1]], [-19.5, -10.7], atol=0.01)
    assert (data["lower_bound"] <= data["gain"] + 1e-9).all()
    assert (data["gain"] <= data["upper_bound"] + 1e-9).all()
    false = data["share"][data["printed_bound"] > data["gain"] + 1e-9]
    assert 0.8 < false.min() < 0.9
    assert (data["state_shift"] <= data["state_shift_bound"] + 1e-9).all()


def test_the_maps_of_grid_worlds_have_an_action_in_every_cell_that_is_not_an_end() -> None:
    data = control.grid_worlds()
    for name in control.WORLDS:
        lines = np.array([list(line) for line in data[f"{name}_map"]])
        floor = (lines == ".") | (lines == "S")
        np.testing.assert_array_equal(data[f"{name}_actions"] >= 0, floor)
        np.testing.assert_array_equal(np.isfinite(data[f"{name}_values"]), floor)
    up, right, down = 0, 1, 2
    assert data["cliff_actions"][2].tolist() == [right] * 11 + [down]  # along the edge
    assert data["slippery_actions"][2].tolist() == [up] * 11 + [down]  # away from it
    assert data["cliff_values"][2, 11] == -1.0


# -- results that come with Jumar ---------------------------------------------------------------------------------------


def test_the_slate_has_the_results_of_every_task() -> None:
    data = tasks.mujoco_slate()
    assert data["tasks"] == list(tasks.TASKS.values())
    for task in data["tasks"]:
        for method in data["methods"]:
            assert data[f"{task} {method} runs"] == 5
            assert len(data[f"{task} {method}"]) == 50
            assert data[f"{task} {method} steps"][-1] == tasks.LENGTH


def test_the_slate_reads_results_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "returns.json"
    runs = [{"evaluations": [1.0, 2.0]}, {"evaluations": [3.0, 6.0, 9.0]}]
    path.write_text(json.dumps({"tasks": {"hopper": {"ppo": runs, "other": []}, "cartpole": {}}}))
    data = tasks.mujoco_slate(path)
    assert data["tasks"] == ["Hopper-v5"]
    np.testing.assert_array_equal(data["Hopper-v5 ppo"], [2.0, 4.0])
    np.testing.assert_array_equal(data["Hopper-v5 ppo steps"], [500_000, 1_000_000])
    assert svg(tasks.draw_mujoco_slate(data))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "is not a JSON file of results"),
        ("[]", "is damaged"),
        ('{"tasks": {"hopper": {"ppo": [{"evaluations": ["x"]}]}}}', "evaluations|is damaged"),
        ('{"tasks": {}}', "has no results of halfcheetah"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "returns.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match=words):
        tasks.mujoco_slate(path)


def test_a_missing_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        tasks.mujoco_slate(tmp_path / "returns.json")


# -- drawing ----------------------------------------------------------------------------------------------------------


def test_arrows_of_a_field_have_one_length_whatever_the_vectors() -> None:
    _, [axes] = panels(1, 2.0, 2.0)
    x, y = np.linspace(0.0, 4.0, 3), np.linspace(0.0, 1.0, 3)
    vectors = np.random.default_rng(0).standard_normal((3, 3, 2)) * 10.0 ** np.arange(3)[:, None, None]
    field(axes, x, y, vectors, "black")
    [drawn] = axes.collections
    np.testing.assert_allclose(np.hypot(drawn.U / 4.0, drawn.V / 1.0), 0.375)
    np.testing.assert_allclose(drawn.U * vectors[..., 1].ravel(), drawn.V * vectors[..., 0].ravel(), atol=1e-9)


def test_figures_that_train_are_drawn_from_short_and_gappy_logs() -> None:
    lines = np.array([[np.nan, 1.0], [np.nan, 2.0]])
    data: dict[str, Any] = {"methods": ["ddpg", "td3"]}
    for method in data["methods"]:
        data |= {
            f"{method} steps": np.array([1_000.0, 2_000.0]),
            **{f"{method} {q}": lines for q in critics.QUANTITIES},
        }
    assert svg(critics.draw_overestimation(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", [figure.name for figure in in_order(["all"])])
def test_every_figure_is_drawn(name: str) -> None:
    figure = find(name)
    data = figure.data()
    for one in data.values():
        if isinstance(one, np.ndarray) and one.dtype.kind == "f" and figure.name != "grid-worlds":
            assert np.isfinite(one).all()
    drawn = picture(figure, data, ".svg")
    assert len(drawn) < 160_000
    json.loads(data_file(figure, data))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["temperatures", "overestimation"])
def test_figures_that_train_can_train_for_a_short_time(name: str) -> None:
    if name == "overestimation":
        pytest.importorskip("mujoco")
    figure = find(name)
    assert svg(figure.draw(figure.data(steps=1_000)))


# -- the gallery ------------------------------------------------------------------------------------------------------

PICTURES = Path(__file__).parents[2] / "docs" / "figures"


@pytest.mark.skipif(not PICTURES.is_dir(), reason="the pages are not part of an installed package")
def test_the_gallery_has_every_figure_and_no_other() -> None:
    assert {path.stem for path in PICTURES.glob("*.svg")} == set(FIGURES)
    assert all(path.stat().st_size < 160_000 for path in PICTURES.glob("*.svg"))
