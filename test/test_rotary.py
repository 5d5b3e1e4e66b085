"""Rotary embeddings in models: every spelling is one dispatch, with the normalization before it where there is one."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import zoo
from onnx.reference import ReferenceEvaluator

import ingot
from ingot.compiler.jit import draft_program
from ingot.cuda_targets import BY_NAME
from ingot.engine import Engine
from ingot.launch_program import DispatchStep

# What x is read as: as it is; or normalized by its root mean square, with a weight, in two spellings.
PLAIN = "n = Identity(x)"
RMS = """sq = Mul(x, x)
m = ReduceMean<keepdims=1>(sq, last)
me = Add(m, eps)
root = Sqrt(me)
u = Div(x, root)
n = Mul(u, w)"""
LAYER = "n = LayerNormalization<axis=-1>(x, w)"

# n [N, S, 2, 8] turned by angles c and s [N, S, 1, 8], whose pairs are equal.
TURNED = """u1 = Mul(n, c)
u2 = Mul(t, s)
y = Add(u1, u2)"""
PAIRED = f"""nb = Neg(b)
ua = Unsqueeze(a, last)
ub = Unsqueeze(nb, last)
st = Concat<axis=-1>(ub, ua)
t = Reshape(st, whole)
{TURNED}"""
STACK = f"""p = Reshape(n, pairs)
a = Gather<axis=-1>(p, zero)
b = Gather<axis=-1>(p, one)
{PAIRED}"""
EVERY_OTHER = f"""a = Slice(n, from0, end, four_axis, two)
b = Slice(n, from1, end, four_axis, two)
{PAIRED}"""
HALVES = f"""a, b = Split<axis=-1, num_outputs=2>(n)
nb = Neg(b)
t = Concat<axis=-1>(nb, a)
{TURNED}"""
COMPUTED_HALVES = """a, b = Split<axis=-1, num_outputs=2>(n)
ch, cx = Split<axis=-1, num_outputs=2>(c)
sh, sx = Split<axis=-1, num_outputs=2>(s)
ac = Mul(a, ch)
bs = Mul(b, sh)
f = Sub(ac, bs)
bc = Mul(b, ch)
as = Mul(a, sh)
g = Add(bc, as)
j = Concat<axis=-1>(f, g)
y = Mul(j, half)"""
INTERLEAVED = {"stack", "every_other"}
SPELLINGS = {"stack": STACK, "every_other": EVERY_OTHER, "halves": HALVES, "computed_halves": COMPUTED_HALVES}


def model(norm: str, spelling: str) -> onnx.ModelProto:
    body = "\n".join(f"  {line}" for line in f"{norm}\n{SPELLINGS[spelling]}".splitlines())
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
rotary (float[N, S, 2, 8] x, float[N, S, 1, 8] c, float[N, S, 1, 8] s) => (float[N, S, 2, 8] y)
<float[8] w = {{0.5, 1.0, 1.5, 2.0, -0.5, -1.0, 0.25, 3.0}}, float eps = {{0.00001}}, float half = {{0.5}},
 int64[1] last = {{-1}}, int64 zero = {{0}}, int64 one = {{1}}, int64[5] pairs = {{0, 0, 2, 4, 2}},
 int64[4] whole = {{0, 0, 2, 8}}, int64[1] from0 = {{0}}, int64[1] from1 = {{1}}, int64[1] end = {{8}}, int64[1] two = {{2}},
 int64[1] four_axis = {{3}}>
{{
{body}
}}"""
    parsed = onnx.parser.parse_model(text)
    used = {name for node in parsed.graph.node for name in node.input}
    kept = [t for t in parsed.graph.initializer if t.name in used]
    del parsed.graph.initializer[:]
    parsed.graph.initializer.extend(kept)
    return parsed


def roots(engine: Engine) -> list[str]:
    """The roots of an engine's dispatches on a GPU, in order."""
    draft = draft_program(engine.ir, BY_NAME["sm_90a"])
    return [draft.dispatches[s.kernel].root for s in draft.program.steps if isinstance(s, DispatchStep)]


@pytest.mark.parametrize(("norm", "root"), [(PLAIN, "pointwise"), (RMS, "normalize"), (LAYER, "normalize")])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_dispatch(spelling: str, norm: str, root: str) -> None:
    proto = model(norm, spelling)
    engine = ingot.compile(proto)
    assert roots(engine) == [root]
    rng = np.random.default_rng(1)
    session = ingot.Session(engine, device="cpu")
    for n, s in ((1, 3), (2, 5)):
        angle = rng.uniform(0, 6, (n, s, 1, 4))
        angle = np.repeat(angle, 2, -1) if spelling in INTERLEAVED else np.concatenate([angle, angle], -1)
        x = rng.standard_normal((n, s, 2, 8)).astype(np.float32)
        feeds = {"x": x, "c": np.cos(angle).astype(np.float32), "s": np.sin(angle).astype(np.float32)}
        (expected,) = ReferenceEvaluator(proto).run(None, feeds)
        (got,) = session.run(None, feeds)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


PADDED = """<ir_version: 9, opset_import: ["" : 18]>
rotary (float[N, S, 2, 8] x, float[N, S, 1, 3] f) => (float[N, S, 2, 8] y)
<int64[1] last = {-1}, int64 zero = {0}, int64 one = {1}, int64[5] pairs = {0, 0, 2, 4, 2}, int64[4] whole = {0, 0, 2, 8},
 int64[5] twice = {1, 1, 1, 1, 2}, int64[4] six = {0, 0, 1, 6}, int64[8] pads = {0, 0, 0, 2, 0, 0, 0, 0}, float unit = {1.0}>
{
  n = Identity(x)
  fu = Unsqueeze(f, last)
  fe = Expand(fu, twice)
  angle = Reshape(fe, six)
  cc = Cos(angle)
  c = Pad(cc, pads, unit)
  ss = Sin(angle)
  s = Pad(ss, pads)
BODY
}"""


def test_tables_hold_every_angle_once() -> None:
    """Repeated angles, their sines and cosines, and these padded by a whole pair, are computed once a pair and read so."""
    proto = onnx.parser.parse_model(PADDED.replace("BODY", STACK))
    engine = ingot.compile(proto)
    draft = draft_program(engine.ir, BY_NAME["sm_90a"])
    dispatches = [draft.dispatches[s.kernel] for s in draft.program.steps if isinstance(s, DispatchStep)]
    assert [d.root for d in dispatches] == ["pointwise"] * 5
    assert [d.results[0].shape[-1] for d in dispatches[:-1]] in ([3, 4, 3, 4], [3, 3, 4, 4])
    tables = [t for t in dispatches[-1].operands if t.shape[-2:] == (4, 1)]
    assert len(tables) == 2
    rng = np.random.default_rng(1)
    for n, s in ((1, 3), (2, 5)):
        x, f = rng.standard_normal((n, s, 2, 8)), rng.uniform(0, 6, (n, s, 1, 3))
        feeds = {"x": x.astype(np.float32), "f": f.astype(np.float32)}
        (expected,) = ReferenceEvaluator(proto).run(None, feeds)
        (got,) = ingot.Session(engine, device="cpu").run(None, feeds)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


# One of a block's two attentions is to the text, whose keys and values all blocks compute together.
BLOCK = ["normalize", "matmul", "normalize", "normalize", "attention", "matmul",  # normalized, q k v, rotated q, rotated k, ...
         "matmul", "normalize", "normalize", "attention", "matmul",
         "normalize", "matmul", "matmul"]  # fmt: skip


def test_launches_of_a_video_transformers_block(zoo_model) -> None:
    """14 a block: modulations, residuals, gates and rotary embeddings are no passes over memory of their own (20 before)."""
    found = roots(ingot.compile(zoo_model("ltx_video") / "model.onnx", cast="fp16"))
    final = found[-len(BLOCK) - 3 :]
    assert final[: len(BLOCK)] == BLOCK
    assert final[len(BLOCK) :] == ["pointwise", "normalize", "matmul"]


def test_a_video_transformer_in_f16(zoo_model) -> None:
    folder = zoo_model("ltx_video")
    session = ingot.Session(ingot.compile(folder / "model.onnx", cast="fp16"), device="cpu")
    for feeds, reference in zoo.input_sets(folder):
        (got,) = session.run(None, feeds)
        assert zoo.relative_error(got, reference["velocity"]) < zoo.TOLERANCE["fp16"]
