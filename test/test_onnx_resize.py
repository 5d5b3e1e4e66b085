"""Resize, lowered and run in the interpreter, against ONNX Runtime, or ONNX's own evaluator where that departs from it."""

from __future__ import annotations

import numpy as np
import pytest
from test_onnx_lowering import NHW, ROWS, Case, Lowered, X, check

from ingot.errors import ModelError

SCALES = {"r": np.array([], np.float32), "s": np.array([1, 1, 2, 2], np.float32)}
CASES = {
    "nearest": Case('y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
                           'nearest_mode = "floor"> (x, r, s)', X, NHW, SCALES),
    "nearest_default": Case("y = Resize (x, r, s)", X, NHW,
                                   {**SCALES, "s": np.array([1, 1, 1.5, 0.6], np.float32)}),
    "sizes": Case('y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, r, , z)',
                         {"x": ("f", ["N", 2, 5, 4])}, ROWS, {"r": SCALES["r"], "z": np.array([1, 2, 7, 9])}),
    "sizes_of_other": Case('s = Shape (o)\n y = Resize <nearest_mode = "ceil"> (x, r, , s)',
                                  {"x": ("f", ["N", 2, "H", 4]), "o": ("f", ["N", 2, "K", "L"])},
                                  [{"N": 1, "H": 5, "K": 9, "L": 7}], {"r": SCALES["r"]}),
    "linear": Case('y = Resize <mode = "linear"> (x, r, s)', X, NHW,
                          {**SCALES, "s": np.array([1, 1, 2, 1.5], np.float32)}),
    "linear_down": Case('y = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"> (x, r, s)',
                               X, NHW, {**SCALES, "s": np.array([1, 1, 0.5, 0.4], np.float32)}),
    "align": Case('y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, r, s)', X, NHW,
                         SCALES),
    "cubic": Case('y = Resize <mode = "cubic"> (x, r, s)', X, NHW,
                         {**SCALES, "s": np.array([1, 1, 2, 1.5], np.float32)}),
    "cubic_down": Case('y = Resize <mode = "cubic", exclude_outside = 1, cubic_coeff_a = -0.5> (x, r, s)', X, NHW,
                              {**SCALES, "s": np.array([1, 1, 0.5, 0.4], np.float32)}),
    "cubic_align": Case('y = Resize <mode = "cubic", coordinate_transformation_mode = "align_corners", axes = [2, 3]> '
                               "(x, , , z)", {"x": ("f", ["N", 2, 5, 4])}, ROWS, {"z": np.array([7, 9])}),
    "by_a_scale_that_keeps_the_size": Case('y = Resize <mode = "linear", axes = [1]> (x, , s)', {"x": ("f", ["N", 7])}, ROWS,
                                           {"s": np.array([1.1], np.float32)}, opset=24),  # ONNX Runtime copies x
    "cubic_over_four_axes": Case('y = Resize <mode = "cubic"> (x, , , z)', {"x": ("f", [3, 2, "H", 4])}, [{"H": 5}, {"H": 2}],
                                 {"z": np.array([4, 3, 7, 6])}, opset=24),
    **{f"not_distorted_{policy}": Case(
           f'y = Resize <mode = "linear", axes = [1, 2], keep_aspect_ratio_policy = "{policy}"> (x, , , z)',
           {"x": ("f", ["N", "H", "W"])}, [{"N": 2, "H": 5, "W": 7}, {"N": 1, "H": 9, "W": 3}], {"z": np.array([4, 8])},
           opset=24)
       for policy in ("not_larger", "not_smaller")},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_resize(case: Case) -> None:
    check(case)


ANTIALIASED = {
    **{f"{mode}_by_{'scales' if by == 's' else 'sizes'}": Case(
           f'y = Resize <mode = "{mode}", antialias = 1, axes = [2, 3]> (x, , {by})', X, NHW, {by.strip(", "): to}, opset=24)
       for mode in ("linear", "cubic")
       for by, to in (("s", np.array([0.625, 0.375], np.float32)), (", z", np.array([3, 2])))},
    "grows_along_one": Case('y = Resize <mode = "linear", antialias = 1, axes = [2, 3]> (x, , , z)', X, NHW,
                            {"z": np.array([20, 3])}, opset=24),
    "excludes_outside": Case('y = Resize <mode = "cubic", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5, '
                             'axes = [2]> (x, , , z)', X, NHW, {"z": np.array([4])}, opset=24),
    "to_a_size_of_another": Case('s = Shape <start = 1> (o)\n y = Resize <mode = "linear", antialias = 1, axes = [2, 3]> '
                                 "(x, , , s)", {**X, "o": ("f", ["N", "A", "B"])},
                                 [{"N": 1, "H": 9, "W": 4, "A": 2, "B": 8}, {"N": 2, "H": 3, "W": 3, "A": 3, "B": 1}],
                                 opset=24),
    "to_nothing": Case('s = Shape <start = 1> (o)\n y = Resize <mode = "linear", antialias = 1, axes = [1]> (x, , , s)',
                       {"x": ("f", ["N", "H"]), "o": ("f", ["N", "A"])},
                       [{"N": 1, "H": 9, "A": 0}, {"N": 2, "H": 9, "A": 2}], opset=24),
    "half_precision": Case('y = Resize <mode = "linear", antialias = 1, axes = [2, 3]> (x, , , z)',
                           {"x": ("e", ["N", 2, "H", "W"])}, NHW, {"z": np.array([3, 4])}, opset=24, tolerance=5e-4),
}  # fmt: skip


@pytest.mark.parametrize("case", ANTIALIASED.values(), ids=ANTIALIASED)
def test_antialias(case: Case) -> None:
    check(case)


CROP = 'coordinate_transformation_mode = "tf_crop_and_resize"'
# No element lies where rounding to float32 decides what it is.
INSIDE = np.array([0.11, 0.27, 0.93, 0.52], np.float32)
BEYOND = np.array([-0.3, 0.37, 0.7, 1.57], np.float32)
CROPPED = {
    **{f"{mode}_{name}": Case(f'y = Resize <mode = "{mode}", {CROP}, axes = [2, 3], extrapolation_value = 2.5> (x, r, , z)', X,
                              NHW, {"r": region, "z": np.array([5, 4])}, opset=24)
       for mode in ("nearest", "linear", "cubic") for name, region in (("inside", INSIDE), ("beyond", BEYOND))},
    **{f"nearest_{rounding}": Case(f'y = Resize <{CROP}, nearest_mode = "{rounding}", axes = [3, 2]> (x, r, , z)', X, NHW,
                                   {"r": INSIDE, "z": np.array([5, 4])}, opset=24)
       for rounding in ("round_prefer_ceil", "floor", "ceil")},
    "every_axis": Case(f'y = Resize <mode = "linear", {CROP}> (x, r, , z)', {"x": ("f", [1, "C", 4, 4]), "r": ("f", [8])},
                       [{"C": 1, "r": [0, 0, 0.4, 0.6, 1, 1, 0.6, 0.8]}], {"z": np.array([1, 1, 3, 3])}, opset=24),
    "to_one_element": Case(f'y = Resize <mode = "linear", {CROP}, axes = [2, 3]> (x, r, , z)', X, NHW,
                           {"r": INSIDE, "z": np.array([1, 3])}, opset=24),
    "same_size": Case(f'y = Resize <mode = "linear", {CROP}, axes = [1]> (x, r, , z)', {"x": ("f", ["N", 5]), "r": ("f", [2])},
                      [{"N": 2, "r": [0.25, 0.75]}], {"z": np.array([5])}, opset=24),
    "antialiased": Case(f'y = Resize <mode = "linear", antialias = 1, {CROP}, axes = [2, 3]> (x, r, , z)', X, NHW,
                        {"r": BEYOND, "z": np.array([4, 3])}, opset=24),
}  # fmt: skip


@pytest.mark.parametrize("case", CROPPED.values(), ids=CROPPED)
def test_crop_and_resize(case: Case) -> None:
    check(case)


def test_crops_by_scales_are_refused() -> None:
    case = Case(f"y = Resize <{CROP}> (x, q, s)", X, [], {**SCALES, "q": np.zeros(8, np.float32)})
    with pytest.raises(ModelError, match=r"node_0_Resize: Resize: scales beside tf_crop_and_resize are not supported \(give"):
        Lowered(case.model())


def test_an_unknown_mode_is_refused() -> None:
    case = Case('y = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, r, s)', X, [], SCALES)
    with pytest.raises(ModelError, match=r"node_0_Resize: Resize: coordinate_transformation_mode 'tf_half.*' is not"):
        Lowered(case.model())
