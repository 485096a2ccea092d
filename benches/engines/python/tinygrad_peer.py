"""tinygrad's scaled_dot_product_attention, jitted, on its device WEBGPU: Dawn out of the package dawn-python."""

import glob
import importlib.util
import os

os.environ["DEV"] = "WEBGPU"
if not os.environ.get("WEBGPU_PATH"):
    spec = importlib.util.find_spec("pydawn")
    for library in glob.glob(os.path.join(os.path.dirname(spec.origin), "lib", "libwebgpu_dawn*")) if spec else []:
        os.environ["WEBGPU_PATH"] = library

from tinygrad import Device, Tensor, TinyJit

from case import Skip, answer


def prepare(case, q, k, v):
    if case.causal and case.seqlen_q != case.seqlen_k:
        raise Skip("causal only of equal lengths")
    inputs = [Tensor(x, device="WEBGPU").realize() for x in (q, k, v)]
    grouped = case.heads != case.kv_heads
    result = {}

    @TinyJit
    def attention(q, k, v):
        return q.scaled_dot_product_attention(k, v, is_causal=case.causal, enable_gqa=grouped).realize()

    def run():
        result["out"] = attention(*inputs)
        Device["WEBGPU"].synchronize()

    return {}, run, lambda: result["out"].numpy()


answer("tinygrad", "tinygrad", prepare)
