"""Operators of detection, audio, sequences and training, lowered and run in the interpreter, against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_onnx_lowering import IMAGE, MATRIX, NHW, ROWS, Case, Lowered, check, weights

from ingot.errors import ModelError

ORDERED = {
    "cumsum_half": Case("y = CumSum <exclusive = 1> (x, a)", {"x": ("f", ["N", 300])}, [{"N": 2}], {"a": np.int32(1)}),
    "cumprod": Case("y = CumProd <reverse = 1> (x, a)", MATRIX, ROWS, {"a": np.int64(1)}, opset=26),
    "topk": Case("y, i = TopK (x, k)", {"x": ("f", ["N", 9])}, ROWS, {"k": np.array([4])}, ["y", "i"]),
    "topk_smallest": Case("y, i = TopK <axis = 0, largest = 0> (x, k)", {"x": ("i", [7, "N"])}, ROWS, {"k": np.array([7])},
                          ["y", "i"]),
    "topk_uint8": Case("y, i = TopK <largest = 0> (x, k)", {"x": ("B", ["N", 4])}, [{"x": [[200, 3, 255, 3]]}],
                       {"k": np.array([3])}, ["y", "i"], opset=24),
    "topk_of_size": Case("s = Shape <start = 1> (x)\n y, i = TopK (x, s)", {"x": ("f", [2, "H"])}, [{"H": 5}], {},
                         ["y", "i"]),
    "scatter_elements": Case("y = ScatterElements <axis = 1> (x, i, u)",
                             {"x": ("f", ["N", 6]), "i": ("l", ["N", 3]), "u": ("f", ["N", 3])},
                             [{"N": 2, "i": [[0, -1, 2], [5, 1, -3]]}]),
    **{f"scatter_elements_{kind}": Case(f'y = ScatterElements <reduction = "{kind}"> (x, i, u)',
                                        {"x": ("f", ["N", 2]), "i": ("l", ["K", 2]), "u": ("f", ["K", 2])},
                                        [{"N": 3, "K": 4, "i": [[0, 1], [0, 1], [2, -1], [0, 1]]}])
       for kind in ("add", "mul", "max", "min")},
    "scatter_nd": Case("y = ScatterND (x, i, u)",
                       {"x": ("f", ["N", 4, 3]), "i": ("l", ["K", 2]), "u": ("f", ["K", 3])},
                       [{"N": 2, "K": 2, "i": [[0, 3], [-1, 1]]}]),
    "scatter_nd_rows": Case('y = ScatterND <reduction = "add"> (x, i, u)',
                            {"x": ("l", ["N", 3]), "i": ("l", [2, 2, 1]), "u": ("l", [2, 2, 3])},
                            [{"N": 4, "i": [[[0], [3]], [[0], [0]]]}]),
    "tensor_scatter": Case('y = TensorScatter <axis = 2, mode = "circular"> (x, u, i)',
                           {"x": ("f", ["N", 2, 5, 3]), "u": ("f", ["N", 2, "K", 3]), "i": ("l", ["N"])},
                           [{"N": 2, "K": 3, "i": [1, 4]}], opset=24),
    "max_unpool": Case("y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i)",
                       {"x": ("f", [1, 1, "H", 2]), "i": ("l", [1, 1, "H", 2])}, [{"H": 2, "i": [[[[1, 3], [8, 15]]]]}]),
    "max_unpool_larger": Case("y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i, s)",
                              {"x": ("f", [1, 1, 2, 2]), "i": ("l", [1, 1, 2, 2])}, [{"i": [[[[1, 3], [8, 15]]]]}],
                              {"s": np.array([1, 1, 5, 5])}, opset=24),
    "col2im": Case("y = Col2Im <dilations = [2, 1], pads = [1, 0, 0, 2], strides = [1, 2]> (x, s, k)",
                   {"x": ("f", ["N", 8, 12])}, [{"N": 2}], {"s": np.array([4, 6]), "k": np.array([2, 2])}),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERED.values(), ids=ORDERED)
def test_order_and_place(case: Case) -> None:
    check(case)


LENGTH = {"n": np.int64(12), "a": np.int64(1)}
SPECTRAL = {
    "dft": Case("y = DFT (x, , a)", {"x": ("f", ["N", 10, 3, 1])}, ROWS, LENGTH),
    "dft_complex": Case("y = DFT (x)", {"x": ("f", ["N", 3, 7, 2])}, ROWS),
    "dft_padded": Case("y = DFT <onesided = 1> (x, n, a)", {"x": ("f", ["N", 10, 1])}, ROWS, LENGTH),
    "dft_cut": Case("y = DFT (x, n, a)", {"x": ("f", ["N", 15, 2])}, ROWS, LENGTH),
    "dft_inverse": Case("y = DFT <inverse = 1> (x, , a)", {"x": ("f", ["N", 8, 2])}, ROWS, LENGTH),
    "dft_inverse_onesided": Case("y = DFT <inverse = 1, onesided = 1> (x, n, a)", {"x": ("f", ["N", 7, 2])}, ROWS,
                                 LENGTH, opset=24),
    "dft_inverse_odd": Case("y = DFT <inverse = 1, onesided = 1> (x, n, a)", {"x": ("f", ["N", 5, 2])}, ROWS,
                            {"n": np.int64(9), "a": np.int64(1)}, opset=24),
    "stft": Case("y = STFT (x, s, w)", {"x": ("f", ["N", "T", 1])}, [{"N": 2, "T": 37}], {"s": np.int64(4), "w": weights(16)}),
    "stft_complex": Case("y = STFT <onesided = 0> (x, s, , f)", {"x": ("f", ["N", "T", 2])}, [{"N": 2, "T": 37}],
                         {"s": np.int64(5), "f": np.int64(8)}),
    "stft_computed_window": Case("v = Mul (w, w)\n y = STFT (x, s, v)", {"x": ("f", ["N", 40, 1]), "w": ("f", [16])}, ROWS,
                                 {"s": np.int64(8)}),
    "mel_weight_matrix": Case("y = MelWeightMatrix (b, n, r, l, h)", {}, [{}],
                              {"b": np.int64(8), "n": np.int64(16), "r": np.int64(8192), "l": np.float32(0),
                               "h": np.float32(4096)}),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECTRAL.values(), ids=SPECTRAL)
def test_spectral(case: Case) -> None:
    check(replace(case, tolerance=1e-5))  # ONNX Runtime's own transform is 2e-6 from numpy's


def test_a_transform_of_unknown_length() -> None:
    case = Case("y = DFT (x)", {"x": ("f", ["N", "T", 1])}, [])
    with pytest.raises(ModelError, match="node_0_DFT: DFT: a transform of length T of T elements is not supported"):
        Lowered(case.model())


SEQUENCES = {"x": ("f", ["T", "N", 3])}
SEQUENCE_FEEDS = [{"T": 4, "N": 2}, {"T": 1, "N": 1}]


def cell(gates: int, directions: int = 1, **more: Any) -> dict[str, Any]:
    """Weights of a recurrent node of 5 hidden elements."""
    d, rows = directions, gates * 5
    return {"w": weights(d, rows, 3), "r": weights(d, rows, 5), "b": weights(d, 2 * rows)} | more


ENDING = {**SEQUENCES, "n": ("i", ["N"])}
ENDING_FEEDS = [{"T": 4, "N": 3, "n": [4, 1, 2]}]
RECURRENT = {
    "rnn": Case("y, h = RNN <hidden_size = 5> (x, w, r)", SEQUENCES, SEQUENCE_FEEDS, cell(1), ["y", "h"]),
    "rnn_both_ways": Case('y, h = RNN <hidden_size = 5, clip = 0.7, direction = "bidirectional", '
                          'activations = ["Relu", "Affine"], activation_alpha = [0.5], activation_beta = [0.1]> (x, w, r, b)',
                          SEQUENCES, SEQUENCE_FEEDS, cell(1, 2), ["y", "h"]),
    "gru": Case("y, h = GRU <hidden_size = 5> (x, w, r, b)", SEQUENCES, SEQUENCE_FEEDS, cell(3), ["y", "h"], tolerance=1e-5),
    "gru_late_reset": Case('y, h = GRU <hidden_size = 5, linear_before_reset = 1, direction = "reverse"> (x, w, r, b, n, s)',
                           {**ENDING, "s": ("f", [1, "N", 5])}, ENDING_FEEDS, cell(3), ["y", "h"], tolerance=1e-5),
    "lstm": Case("y, h, c = LSTM <hidden_size = 5> (x, w, r)", SEQUENCES, SEQUENCE_FEEDS, cell(4), ["y", "h", "c"],
                 tolerance=1e-5),
    "lstm_all": Case('y, h, c = LSTM <hidden_size = 5, direction = "bidirectional"> (x, w, r, b, n, s, c0, p)',
                     {**ENDING, "s": ("f", [2, "N", 5]), "c0": ("f", [2, "N", 5])}, ENDING_FEEDS,
                     cell(4, 2, p=weights(2, 15)), ["y", "h", "c"], tolerance=1e-5),
    "lstm_only_last": Case("z, y = LSTM <hidden_size = 5, input_forget = 1> (x, w, r, b)", SEQUENCES, SEQUENCE_FEEDS, cell(4),
                           tolerance=1e-5),
    "lstm_batch_first": Case("y, h, c = LSTM <hidden_size = 5, layout = 1> (x, w, r, b, , s)",
                             {"x": ("f", ["N", "T", 3]), "s": ("f", ["N", 1, 5])}, SEQUENCE_FEEDS, cell(4), ["y", "h", "c"],
                             opset=24, tolerance=1e-5),  # ONNX Runtime has no layout=1
}  # fmt: skip


@pytest.mark.parametrize("case", RECURRENT.values(), ids=RECURRENT)
def test_recurrent(case: Case) -> None:
    check(case)


GRID = {"x": ("f", ["N", 3, 5, 4]), "g": ("f", ["N", "H", 2, 2])}
GRID_FEEDS = [{"N": 2, "H": 8}, {"N": 1, "H": 3}]  # coordinates are normally distributed: a third lies outside
REGIONS = {"x": ("f", ["N", 3, 9, 8]), "r": ("f", ["K", 4]), "i": ("l", ["K"])}
REGION_FEEDS = [{"N": 2, "K": 3, "r": [[1, 2, 5, 6.5], [0, 0, 3, 20], [-4, -3, 30, 9]], "i": [0, 1, 0]}]
SAMPLING = {
    **{f"grid_{mode}_{padding}_{align}": Case(
           f'y = GridSample <mode = "{mode}", padding_mode = "{padding}", align_corners = {align}> (x, g)', GRID, GRID_FEEDS,
           tolerance=1e-5)
       for mode in ("linear", "nearest", "cubic") for padding in ("zeros", "border", "reflection") for align in (0, 1)},
    "grid_3d": Case("y = GridSample (x, g)", {"x": ("f", ["N", 2, 3, 5, 4]), "g": ("f", ["N", "H", 2, 3, 3])}, GRID_FEEDS,
                    tolerance=1e-5),
    "roi_align": Case("y = RoiAlign <output_height = 3, output_width = 2, sampling_ratio = 2, spatial_scale = 0.5> (x, r, i)",
                      REGIONS, REGION_FEEDS, tolerance=1e-5),
    "roi_align_max": Case('y = RoiAlign <mode = "max", output_height = 2, output_width = 2, sampling_ratio = 3, '
                          'coordinate_transformation_mode = "output_half_pixel"> (x, r, i)', REGIONS, REGION_FEEDS,
                          tolerance=1e-5),
    "deform_conv": Case("y = DeformConv <pads = [1, 1, 1, 1], offset_group = 2> (x, w, o, b, m)",
                        {"x": ("f", ["N", 4, 5, 6]), "o": ("f", ["N", 36, 5, 6]), "m": ("f", ["N", 18, 5, 6])},
                        [{"N": 2}], {"w": weights(3, 4, 3, 3), "b": weights(3)}, opset=24, tolerance=1e-5),
    "deform_conv_groups": Case("y = DeformConv <strides = [2, 1], dilations = [1, 2], group = 2> (x, w, o)",
                               {"x": ("f", ["N", 4, 5, 6]), "o": ("f", ["N", 8, 2, 4])}, [{"N": 1}],
                               {"w": weights(6, 2, 2, 2)}, opset=24, tolerance=1e-5),
    "max_pool_places": Case("y, i = MaxPool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 1, 0, 0]> (x)", IMAGE, NHW,
                            outputs=["y", "i"]),
    "max_pool_places_by_column": Case("y, i = MaxPool <kernel_shape = [2, 2], dilations = [2, 1], storage_order = 1> (x)",
                                      IMAGE, NHW, outputs=["y", "i"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SAMPLING.values(), ids=SAMPLING)
def test_sampling(case: Case) -> None:
    check(case)


def test_samples_that_depend_on_regions() -> None:
    case = Case("y = RoiAlign <output_height = 2, output_width = 2> (x, r, i)", REGIONS, [])
    with pytest.raises(ModelError, match="node_0_RoiAlign: RoiAlign: sampling_ratio=0 is not supported"):
        Lowered(case.model())


DETERMINANTS = {
    "det": Case("y = Det (x)", {"x": ("f", ["N", "M", "M"])}, [{"N": 3, "M": 4}, {"N": 2, "M": 1}, {"N": 1, "M": 7}],
                tolerance=1e-5),
    "det_of_two_axes": Case("y = Det (x)", {"x": ("f", [3, 3])}, [{}, {"x": [[0, 2, 1], [0, 4, 2], [1, 0, 3]]},
                                                                  {"x": [[0, 2, 1], [3, 4, 2], [1, 0, 3]]}]),
    "det_double": Case("y = Det (x)", {"x": ("d", ["N", 2, 4, 4])}, ROWS, opset=24, tolerance=1e-12),
}  # fmt: skip


@pytest.mark.parametrize("case", DETERMINANTS.values(), ids=DETERMINANTS)
def test_determinants(case: Case) -> None:
    check(case)


LABELS = {"x": ("f", ["N", 5, "D"]), "t": ("l", ["N", "D"])}
LABEL_FEEDS = [{"N": 2, "D": 3, "t": [[0, 4, 2], [1, 1, 3]]}]
CLASS_WEIGHTS = {"w": np.array([0.5, 1.0, 2.0, 0.25, 1.5], np.float32)}
LOSSES = {
    "nll": Case("y = NegativeLogLikelihoodLoss (x, t)", LABELS, LABEL_FEEDS),
    "nll_none": Case('y = NegativeLogLikelihoodLoss <reduction = "none", ignore_index = 1> (x, t, w)', LABELS, LABEL_FEEDS,
                     CLASS_WEIGHTS),
    "nll_sum": Case('y = NegativeLogLikelihoodLoss <reduction = "sum"> (x, t, w)', LABELS, LABEL_FEEDS, CLASS_WEIGHTS),
    "cross_entropy": Case("y, z = SoftmaxCrossEntropyLoss <ignore_index = 1> (x, t, w)", LABELS, LABEL_FEEDS, CLASS_WEIGHTS,
                          ["y", "z"]),
    "cross_entropy_mean": Case("y = SoftmaxCrossEntropyLoss <ignore_index = -1> (x, t)",
                               {"x": ("f", ["N", 5]), "t": ("i", ["N"])}, [{"N": 3, "t": [4, -1, 0]}]),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES.values(), ids=LOSSES)
def test_losses(case: Case) -> None:
    check(case)


def test_a_function_that_depends_on_the_node() -> None:
    """ONNX writes the body of a linear attention from its attributes and operands."""
    inputs = {"q": ("f", ["N", "T", 8]), "k": ("f", ["N", "T", 4]), "v": ("f", ["N", "T", 6])}
    nodes = 'y, s = LinearAttention <q_num_heads = 2, kv_num_heads = 1, update_rule = "linear"> (q, k, v)'
    lowered = check(Case(nodes, inputs, [{"N": 2, "T": 3}], outputs=["y", "s"], opset=27, tolerance=1e-5))
    assert "loop" in lowered.ops()
