"""ggml's FLASH_ATTN_EXT on one of its devices, through ctypes: ggml_peer.py FOLDER-OF-LIBRARIES DEVICE (Vulkan0, CPU)."""

import ctypes as C
import glob
import os
import sys

import numpy as np

from case import answer

F32, F16, PRECISION_F32 = 0, 1, 10


class InitParams(C.Structure):
    _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]


class Ggml:
    """The functions that are used, of ggml's public C interface: name, result, arguments."""

    P, S, I, L, Z, F, B = C.c_void_p, C.c_char_p, C.c_int, C.c_int64, C.c_size_t, C.c_float, C.c_bool
    API = {
        "ggml_version": (S, []),
        "ggml_init": (P, [InitParams]),
        "ggml_new_tensor_4d": (P, [P, I, L, L, L, L]),
        "ggml_nbytes": (Z, [P]),
        "ggml_flash_attn_ext": (P, [P, P, P, P, P, F, F, F]),
        "ggml_prec_set_acc": (None, [P, I]),
        "ggml_new_graph": (P, [P]),
        "ggml_build_forward_expand": (None, [P, P]),
        "ggml_backend_load_all_from_path": (None, [S]),
        "ggml_backend_dev_count": (Z, []),
        "ggml_backend_dev_get": (P, [Z]),
        "ggml_backend_dev_name": (S, [P]),
        "ggml_backend_dev_description": (S, [P]),
        "ggml_backend_dev_init": (P, [P, S]),
        "ggml_backend_dev_supports_op": (B, [P, P]),
        "ggml_backend_dev_backend_reg": (P, [P]),
        "ggml_backend_reg_get_proc_address": (P, [P, S]),
        "ggml_backend_alloc_ctx_tensors": (P, [P, P]),
        "ggml_backend_tensor_set": (None, [P, P, Z, Z]),
        "ggml_backend_tensor_get": (None, [P, P, Z, Z]),
        "ggml_backend_graph_compute": (I, [P, P]),
        "ggml_backend_synchronize": (None, [P]),
    }

    def __init__(self, folder):
        self.libs = []
        base = C.CDLL(os.path.join(folder, "libggml-base.so"), mode=C.RTLD_GLOBAL)
        top = [p for p in glob.glob(os.path.join(folder, "libggml*.so"))
               if not any(s in os.path.basename(p) for s in ("-base", "-cpu", "-vulkan", "-cuda"))]
        self.libs = [base] + [C.CDLL(p, mode=C.RTLD_GLOBAL) for p in top]
        for name, (res, args) in self.API.items():
            for lib in self.libs:
                try:
                    f = getattr(lib, name)
                    break
                except AttributeError:
                    f = None
            if f is None:
                raise RuntimeError(f"{name} is in none of the libraries")
            f.restype, f.argtypes = res, args
            setattr(self, name.removeprefix("ggml_"), f)
        self.backend_load_all_from_path(folder.encode())


def prepare(case, q, k, v):
    g = Ggml(os.path.abspath(sys.argv[1]))
    devices = {}
    for index in range(g.backend_dev_count()):
        device = g.backend_dev_get(index)
        devices[g.backend_dev_name(device).decode()] = device
    device = devices.get(sys.argv[2])
    if device is None:
        raise RuntimeError(f"no device {sys.argv[2]}; there are {list(devices)}")
    backend = g.backend_dev_init(device, None)
    set_threads = g.backend_reg_get_proc_address(g.backend_dev_backend_reg(device), b"ggml_backend_set_n_threads")
    if set_threads:
        C.CFUNCTYPE(None, C.c_void_p, C.c_int)(set_threads)(backend, os.cpu_count())

    context = g.init(InitParams(1 << 20, None, True))
    tensors = [g.new_tensor_4d(context, F32, *reversed(x.shape)) for x in (q, k, v)]
    mask = g.new_tensor_4d(context, F16, case.seqlen_k, case.seqlen_q, 1, 1) if case.causal else None
    out = g.flash_attn_ext(context, *tensors, mask, case.head_dim**-0.5, 0.0, 0.0)
    g.prec_set_acc(out, PRECISION_F32)
    if not g.backend_dev_supports_op(device, out):
        raise RuntimeError("supports_op says no")
    graph = g.new_graph(context)
    g.build_forward_expand(graph, out)
    if not g.backend_alloc_ctx_tensors(context, backend):
        raise RuntimeError("the allocation failed")

    def put(tensor, array):
        array = np.ascontiguousarray(array)
        if array.nbytes != g.nbytes(tensor):
            raise RuntimeError(f"{array.nbytes} bytes for a tensor of {g.nbytes(tensor)}")
        g.backend_tensor_set(tensor, array.ctypes.data, 0, array.nbytes)

    for tensor, array in zip(tensors, (q, k, v)):
        put(tensor, array)
    if case.causal:
        put(mask, np.where(case.closed(), -np.inf, 0.0).astype(np.float16))

    def run():
        status = g.backend_graph_compute(backend, graph)
        if status:
            raise RuntimeError(f"graph_compute: {status}")
        g.backend_synchronize(backend)

    def fetch():
        got = np.empty((case.batch, case.seqlen_q, case.heads, case.head_dim), np.float32)
        g.backend_tensor_get(out, got.ctypes.data, 0, got.nbytes)
        return got.transpose(0, 2, 1, 3)

    return {"adapter": g.backend_dev_description(device).decode(), "version": g.version().decode()}, run, fetch


answer("ggml", None, prepare)
