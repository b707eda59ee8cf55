"""The law's arithmetic, and a valley that is only called one when the seeds agree."""

import numpy as np
import pandas as pd
import pytest

from workbench.metrics.capacity_gap import CapacityGapLaw, fit_u_curve


def valley(bottom, *, noise=0.0, seeds=6, sizes=(1e3, 4e3, 1.6e4, 6.4e4, 2.56e5)):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"teacher_parameters": size, "seed": seed, "nats": (np.log(size / bottom)) ** 2 + noise * rng.normal()}
            for size in sizes
            for seed in range(seeds)
        ]
    )


def test_the_published_line_gives_7233_million_for_minima_3b():
    law = CapacityGapLaw()
    assert law.optimal_teacher(2900) == pytest.approx(7232.702)
    assert law.optimal_student(law.optimal_teacher(310.0)) == pytest.approx(310.0)


def test_below_4_6_million_the_line_has_no_teacher_and_says_so():
    assert CapacityGapLaw().optimal_teacher(4.7) > 0
    with pytest.raises(ValueError, match="below 4.6 M"):
        CapacityGapLaw().optimal_teacher(4.5)


def test_fitting_the_exact_line_returns_it():
    law = CapacityGapLaw()
    fitted = CapacityGapLaw.fit([(size, law.optimal_teacher(size)) for size in (20.0, 80.0, 300.0, 700.0)])
    assert (fitted.slope, fitted.intercept) == pytest.approx((2.498, -11.498), abs=1e-9)
    assert fitted.r_squared == pytest.approx(1.0)
    assert fitted.slope_interval.low == pytest.approx(fitted.slope_interval.high, abs=1e-6)
    assert not fitted.extrapolates(100.0)
    assert fitted.extrapolates(2900.0)


def test_two_points_give_a_line_but_no_interval_and_one_point_no_line():
    assert np.isnan(CapacityGapLaw.fit([(1, 2), (2, 5)]).slope_interval.low)
    with pytest.raises(ValueError, match="fewer than two"):
        CapacityGapLaw.fit([(1, 2), (1, 3)])
    with pytest.raises(ValueError, match="not finite"):
        CapacityGapLaw.fit([(1, 2), (2, float("nan"))])


def test_the_vertex_of_an_exact_parabola_is_found_and_is_interior():
    curve = fit_u_curve(valley(2e4))
    assert curve.optimum.estimate == pytest.approx(2e4)
    assert curve.best_tried == 1.6e4
    assert curve.kind == "interior"


def test_a_valley_beyond_the_range_is_an_edge_and_never_an_optimum():
    for bottom, edge in ((1e2, 1e3), (1e9, 2.56e5)):
        curve = fit_u_curve(valley(bottom))
        assert curve.optimum.estimate == edge
        assert curve.kind == "edge of range"


def test_a_hill_has_its_lowest_point_at_an_end():
    hill = valley(2e4).assign(nats=lambda rows: -rows["nats"])
    curve = fit_u_curve(hill)
    assert curve.curvature < 0
    assert curve.kind == "edge of range"


def test_noise_without_a_valley_is_seldom_called_an_optimum():
    rng = np.random.default_rng(0)
    flat = [valley(2e4).assign(nats=rng.normal(size=30)) for _ in range(60)]
    kinds = [fit_u_curve(table, resamples=300).kind for table in flat]
    assert kinds.count("interior") <= 6


def test_a_plateau_beyond_the_smallest_size_is_no_optimum():
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(40):
        table = valley(2e4)
        level = np.where(table["teacher_parameters"] == 1e3, 2.1, 2.0)
        curves.append(fit_u_curve(table.assign(nats=level + 0.01 * rng.normal(size=30)), resamples=300))
    kinds = [curve.kind for curve in curves]
    assert kinds.count("interior") <= 4
    # What is known of it: more than the smallest size, and mostly no bound above.
    assert all(curve.bracket[0] >= 1e3 for curve in curves)
    assert sum(np.isinf(curve.bracket[1]) for curve in curves) >= 20


def test_the_bracket_holds_the_bottom_of_a_clear_valley():
    low, high = fit_u_curve(valley(1.6e4, noise=1e-3)).bracket
    assert (low, high) == (4e3, 6.4e4)


def test_unsorted_sizes_and_broken_cells_do_not_move_the_optimum():
    broken = valley(2e4).sample(frac=1, random_state=1)
    broken.iloc[0, broken.columns.get_loc("nats")] = np.inf
    curve = fit_u_curve(broken)
    assert curve.optimum.estimate == pytest.approx(2e4)
    assert curve.optimum.n == 5


def test_one_seed_has_an_optimum_without_an_interval():
    curve = fit_u_curve(valley(2e4, seeds=1))
    assert np.isnan(curve.optimum.low)
    assert curve.kind == "undecided"


def test_two_teachers_make_no_valley():
    with pytest.raises(ValueError, match="at least three"):
        fit_u_curve(valley(2e4, sizes=(1e3, 4e3)))
