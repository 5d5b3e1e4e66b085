"""Operators that exporters emit and the `onnx` package has no schema for.

Sources: `com.microsoft` and SimplifiedLayerNormalization: ONNX Runtime, docs/ContribOperators.md; `trt`: the symbols that
TensorRT Model Optimizer (modelopt.onnx and modelopt.torch) registers for its quantized exports.

A row reads as a signature: `Name(input, optional_input?, variadic_input*) -> (outputs) {attribute: type = default}`, where
`type!` marks a required attribute, and an attribute without `!` or default is optional. `onnx_schema` parses it.
"""

from __future__ import annotations

DEFAULT_DOMAIN = (
    "SimplifiedLayerNormalization(X, scale) -> (Y, inv_std_var?) {axis: int = -1, epsilon: float = 1e-05, stash_type: int = 1}",
)

MICROSOFT = (
    "Attention(input, weights, bias?, mask_index?, past?, attention_bias?, past_sequence_length?) -> (output, present?) "
    "{do_rotary: int = 0, mask_filter_value: float = -10000.0, num_heads: int!, past_present_share_buffer: int = 0, "
    "qkv_hidden_sizes: ints, rotary_embedding_dim: int = 0, scale: float, unidirectional: int = 0}",
    "BiasAdd(X, bias, skip) -> (Y) {}",
    "BiasGelu(A, B) -> (C) {}",
    "BiasSplitGelu(X, bias) -> (Y) {}",
    "DequantizeLinear(x, x_scale, x_zero_point?) -> (y) {axis: int}",
    "DynamicQuantizeMatMul(A, B, b_scale, b_zero_point?, bias?) -> (Y) {}",
    "EmbedLayerNormalization(input_ids, segment_ids?, word_embedding, position_embedding, segment_embedding?, gamma, beta, "
    "mask?, position_ids?) -> (output, mask_index?, embedding_sum?) {epsilon: float = 1e-12, mask_index_type: int = 0}",
    "FastGelu(X, bias?) -> (Y) {}",
    "FusedConv(X, W, B?, Z?) -> (Y) {activation: string, activation_params: floats, auto_pad: string = NOTSET, dilations: "
    "ints, group: int = 1, kernel_shape: ints, pads: ints, strides: ints}",
    "FusedGemm(A, B, C?) -> (Y) {activation: string, activation_alpha: float, activation_beta: float, activation_gamma: "
    "float, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0}",
    "FusedMatMul(A, B) -> (Y) {alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0, transBatchB: int "
    "= 0}",
    "GatherBlockQuantized(data, indices, scales, zero_points?) -> (output) {bits: int = 4, block_size: int = 128, "
    "gather_axis: int = 0, quantize_axis: int = 1}",
    "Gelu(X) -> (Y) {}",
    "GroupNorm(X, gamma, beta) -> (Y) {activation: int!, channels_last: int = 1, epsilon: float = 1e-05, groups: int!}",
    "GroupQueryAttention(query, key?, value?, past_key?, past_value?, seqlens_k, total_sequence_length, cos_cache?, "
    "sin_cache?, position_ids?, attention_bias?, head_sink?, k_scale?, v_scale?, q_norm_weight?, k_norm_weight?, "
    "query_seqlens?) -> (output, present_key?, present_value?, output_qk?) {causal: int = 1, do_rotary: int = 0, "
    "k_norm_epsilon: float, k_quant_type: string = NONE, kv_cache_bit_width: int, kv_num_heads: int!, local_window_size: "
    "int = -1, num_heads: int!, q_norm_epsilon: float, qk_norm_epsilon: float = 1e-06, qk_output: int = 0, "
    "rotary_interleaved: int = 0, scale: float, sliding_window_cache: int = 0, smooth_softmax: int = -1, softcap: float = "
    "0.0, v_quant_type: string = NONE}",
    "MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero_point?, b_zero_point?, bias?) -> (Y) {}",
    "MatMulNBits(A, B, scales, zero_points?, g_idx?, bias?) -> (Y) {K: int!, N: int!, accuracy_level: int = 0, bits: int = "
    "4, block_size: int!, weight_prepacked: int = 0}",
    "MultiHeadAttention(query, key?, value?, bias?, key_padding_mask?, attention_bias?, past_key?, past_value?, "
    "past_sequence_length?, cache_indirection?) -> (output, present_key?, present_value?, qk?) {mask_filter_value: float = "
    "-10000.0, num_heads: int!, scale: float, unidirectional: int = 0}",
    "QAttention(input, weight, bias, input_scale, weight_scale, mask_index?, input_zero_point?, weight_zero_point?, past?) "
    "-> (output, present?) {do_rotary: int = 0, mask_filter_value: float = -10000.0, num_heads: int!, "
    "past_present_share_buffer: int = 0, scale: float, unidirectional: int = 0}",
    "QGemm(A, a_scale, a_zero_point, B, b_scale, b_zero_point, C?, y_scale?, y_zero_point?) -> (Y) {alpha: float = 1.0, "
    "transA: int = 0, transB: int = 0}",
    "QLinearAdd(A, A_scale, A_zero_point?, B, B_scale, B_zero_point?, C_scale, C_zero_point?) -> (C) {}",
    "QLinearAveragePool(X, x_scale, x_zero_point?, y_scale, y_zero_point?) -> (Y) {auto_pad: string = NOTSET, ceil_mode: "
    "int = 0, channels_last: int = 0, count_include_pad: int = 0, kernel_shape: ints!, pads: ints, strides: ints}",
    "QLinearConcat(Y_scale, Y_zero_point, inputs*) -> (Y) {axis: int!}",
    "QLinearGlobalAveragePool(X, x_scale, x_zero_point, y_scale, y_zero_point) -> (Y) {channels_last: int = 0}",
    "QLinearLeakyRelu(X, X_scale, X_zero_point?, Y_scale, Y_zero_point?) -> (Y) {alpha: float = 0.01}",
    "QLinearMul(A, A_scale, A_zero_point?, B, B_scale, B_zero_point?, C_scale, C_zero_point?) -> (C) {}",
    "QLinearReduceMean(data, data_scale, data_zero_point?, reduced_scale, reduced_zero_point?) -> (reduced) {axes: ints!, "
    "keepdims: int!}",
    "QLinearSigmoid(X, X_scale, X_zero_point?, Y_scale, Y_zero_point?) -> (Y) {}",
    "QLinearSoftmax(X, X_scale, x_zero_point?, y_scale, y_zero_point) -> (Y) {axis: int = -1, opset: int!}",
    "QLinearWhere(condition, X, x_scale, x_zero_point, Y, y_scale, y_zero_point, z_scale, z_zero_point) -> (Z) {}",
    "QuantizeLinear(x, y_scale, y_zero_point?) -> (y) {axis: int}",
    "QuickGelu(X) -> (Y) {alpha: float = 1.702}",
    "RotaryEmbedding(input, position_ids, cos_cache, sin_cache) -> (output) {interleaved: int = 0, is_packed_batching: int "
    "= 0, num_heads: int = 0, rotary_embedding_dim: int = 0, scale: float = 1.0}",
    "SkipGroupNorm(X, gamma, beta, skip, bias?) -> (Y, S?) {activation: int!, channels_last: int = 1, epsilon: float = "
    "1e-05, groups: int!}",
    "SkipLayerNormalization(input, skip, gamma, beta?, bias?) -> (output, mean?, inv_std_var?, input_skip_bias_sum?) "
    "{epsilon: float = 1e-12}",
    "SkipSimplifiedLayerNormalization(input, skip, gamma, bias?) -> (output, mean?, inv_std_var?, input_skip_bias_sum?) "
    "{epsilon: float = 1e-12}",
)

TENSORRT = (
    "DequantizeLinear(x, x_scale, x_zero_point?) -> (y) {axis: int = 1, block_size: int = 0, output_dtype: int = 0}",
    "QuantizeLinear(x, y_scale, y_zero_point?) -> (y) {axis: int = 1, block_size: int = 0, output_dtype: int = 0, "
    "precision: int = 0, saturate: int = 1}",
    "TRT_FP4DynamicQuantize(input, scale) -> (output, output_scale) {axis: int = -1, block_size: int = 16, scale_type: int "
    "= 17}",
    "TRT_MXFP8DequantizeLinear(input, scale) -> (output) {axis: int = -1, block_size: int = 32, output_dtype: int = 1}",
    "TRT_MXFP8DynamicQuantize(input) -> (output, output_scale) {axis: int = -1, block_size: int = 32, output_dtype: int = 17}",
)

SIGNATURES = {"": DEFAULT_DOMAIN, "com.microsoft": MICROSOFT, "trt": TENSORRT}
