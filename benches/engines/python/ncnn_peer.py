"""ncnn's SDPA layer on Vulkan. Inputs go to the device and the output comes back in every run: it has no other way here."""

import os
import tempfile

import ncnn
import numpy as np

from case import Skip, answer


def prepare(case, q, k, v):
    if case.batch != 1:
        raise Skip("no batch")
    if ncnn.get_gpu_count() == 0:
        raise RuntimeError("ncnn sees no Vulkan device")
    feeds = {"q": q[0], "k": k[0], "v": v[0]}
    if case.causal:
        feeds["mask"] = np.where(case.closed(), np.float32(-1e30), np.float32(0))[None]
    lines = [f"Input {name} 0 1 {name} 0={x.shape[2]} 1={x.shape[1]} 2={x.shape[0]}" for name, x in feeds.items()]
    lines.append(f"SDPA attention {len(feeds)} 1 {' '.join(feeds)} out 5={int(case.causal)}")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = True
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.set_vulkan_device(0)
    with tempfile.TemporaryDirectory() as folder:
        param, weights = os.path.join(folder, "x.param"), os.path.join(folder, "x.bin")
        with open(param, "w") as file:
            file.write("7767517\n%d %d\n%s\n" % (len(lines), len(feeds) + 1, "\n".join(lines)))
        open(weights, "wb").close()
        if net.load_param(param) or net.load_model(weights):
            raise RuntimeError("ncnn refused the graph")
    # A Mat does not keep its array alive.
    feeds = {name: np.ascontiguousarray(x) for name, x in feeds.items()}
    mats = {name: ncnn.Mat(x) for name, x in feeds.items()}
    result = {"feeds": feeds, "net": net}

    def run():
        extractor = net.create_extractor()
        for name, mat in mats.items():
            extractor.input(name, mat)
        status, out = extractor.extract("out")
        if status:
            raise RuntimeError(f"extract: {status}")
        result["out"] = np.array(out)

    return {"adapter": ncnn.get_gpu_info(0).device_name()}, run, lambda: result["out"]


answer("ncnn", "ncnn", prepare)
