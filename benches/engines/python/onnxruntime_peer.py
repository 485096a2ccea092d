"""ONNX Runtime's WebGPU provider: MultiHeadAttention, or GroupQueryAttention where the case is causal or a decode step."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from case import Skip, answer

PROVIDER = "WebGpuExecutionProvider"


def session(nodes, inputs, outputs, fallback=False):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "attention", [info(*x) for x in inputs], [info(*x) for x in outputs])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)], ir_version=11
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Without this, what it cannot compute on the GPU is computed on the CPU without a word.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if fallback else "1")
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER], enable_fallback=0)
    except Exception as error:
        if "RequestAdapter" in str(error):
            raise RuntimeError("no WebGPU adapter: Dawn refused the driver") from error
        raise


KEPT = []


def upload(array):
    """An array on the device: from Python only a session's output may lie there."""
    one = helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.ones(1, array.dtype)))
    product = helper.make_node("Mul", ["x", "one"], ["y"])
    made = session([one, product], [("x", TensorProto.FLOAT, array.shape)], [("y", TensorProto.FLOAT, array.shape)], True)
    binding = made.io_binding()
    binding.bind_cpu_input("x", array)
    binding.bind_output("y", "webgpu")
    made.run_with_iobinding(binding)
    KEPT.append((made, binding))
    return binding.get_outputs()[0]


def rows(array):
    """[batch, heads, seqlen, dim] to [batch, seqlen, heads * dim]."""
    batch, heads, seqlen, dim = array.shape
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3).reshape(batch, seqlen, heads * dim))


def prepare(case, q, k, v):
    if PROVIDER not in ort.get_available_providers():
        raise RuntimeError("this onnxruntime has no WebGPU provider: pip install onnxruntime-webgpu")
    batch, heads, kv_heads, dim = case.batch, case.heads, case.kv_heads, case.head_dim
    float32, int32 = TensorProto.FLOAT, TensorProto.INT32
    decode = case.seqlen_q == 1
    if case.causal and not decode and case.seqlen_q != case.seqlen_k:
        raise Skip("causal only of equal lengths, or one query")
    out = ("out", float32, [batch, case.seqlen_q, heads * dim])
    host = {}
    if decode or case.causal or kv_heads != heads:
        if not (decode or case.causal):
            raise Skip("grouped heads are always causal")
        variant = "GroupQueryAttention"
        past = case.seqlen_k - 1 if decode else 0
        inputs = {"q": rows(q), "k": rows(k[:, :, past:]), "v": rows(v[:, :, past:])}
        names = ["q", "k", "v", "past_k" if decode else "", "past_v" if decode else "", "last", "total"]
        if decode:
            # The cache has room for all keys; the last row is written once more.
            inputs |= {"past_k": k, "past_v": v}
        host = {"last": np.full(batch, case.seqlen_k - 1, np.int32), "total": np.array([case.seqlen_k], np.int32)}
        outputs = [out] + [(name, float32, case.kv_shape()) for name in ("present_k", "present_v")]
        node = helper.make_node(variant, names, [name for name, _, _ in outputs], domain="com.microsoft", num_heads=heads,
                                kv_num_heads=kv_heads)
    else:
        variant = "MultiHeadAttention"
        inputs = {"q": rows(q), "k": rows(k), "v": rows(v)}
        outputs = [out]
        node = helper.make_node(variant, list(inputs), ["out"], domain="com.microsoft", num_heads=heads)
    types = [(name, float32, array.shape) for name, array in inputs.items()]
    types += [(name, int32, array.shape) for name, array in host.items()]
    made = session([node], types, outputs)
    binding = made.io_binding()
    on_device = {name: upload(array) for name, array in inputs.items()}
    for name, value in on_device.items():
        binding.bind_ortvalue_input(name, value)
    for name, array in host.items():
        binding.bind_cpu_input(name, array)
    # Fetching the output is the one sure wait for the queue; it is in the time.
    binding.bind_output("out", "cpu")
    for name, _, _ in outputs[1:]:
        if decode:
            binding.bind_ortvalue_output(name, on_device[name.replace("present", "past")])
        else:
            binding.bind_output(name, "webgpu")
    result = {}

    def run():
        made.run_with_iobinding(binding)
        result["out"] = binding.get_outputs()[0].numpy()

    def fetch():
        out = result["out"].reshape(batch, case.seqlen_q, heads, dim)
        return out.transpose(0, 2, 1, 3)

    return {"variant": variant}, run, fetch


answer("onnxruntime-webgpu", "onnxruntime-webgpu", prepare)
