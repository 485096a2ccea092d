"""Shared by the peers written in Python; the same as ../common, which says what the variables are."""

import json
import os
import pathlib
import sys
import time
from importlib import metadata

import numpy as np


class Case:
    """A line of benches/cases.csv."""

    def __init__(self, line):
        fields = line.strip().split(",")
        self.name = fields[0]
        sizes = [int(field) for field in fields[2:9]]
        self.batch, self.heads, self.kv_heads, self.seqlen_q, self.seqlen_k, self.head_dim, head_dim_v = sizes
        if head_dim_v != self.head_dim:
            sys.exit("the peers know one head_dim")
        self.causal = {"true": True, "false": False}[fields[9]]

    def q_shape(self):
        return self.batch, self.heads, self.seqlen_q, self.head_dim

    def kv_shape(self):
        return self.batch, self.kv_heads, self.seqlen_k, self.head_dim

    def inputs(self):
        shapes = (self.q_shape(), self.kv_shape(), self.kv_shape())
        return [noise(stream, int(np.prod(shape))).reshape(shape) for stream, shape in enumerate(shapes, 1)]

    def reference(self, q, k, v, dtype="f32"):
        """softmax(q kT scale) v in float64, kept in the folder of references."""
        sizes = "x".join(str(size) for size in (*self.q_shape()[:2], *self.kv_shape()[1:2], self.seqlen_q, self.seqlen_k,
                                                self.head_dim))
        folder = os.environ.get("ATTN_REFERENCES")
        path = pathlib.Path(folder) / f"{sizes}-{str(self.causal).lower()}-{dtype}.f64" if folder else None
        if path and path.exists() and path.stat().st_size == q.size * 8:
            return np.fromfile(path).reshape(self.q_shape())
        out = np.empty(self.q_shape())
        for batch in range(self.batch):
            for head in range(self.heads):
                kv_head = head // (self.heads // self.kv_heads)
                key, value = k[batch, kv_head].astype(np.float64), v[batch, kv_head].astype(np.float64)
                for first in range(0, self.seqlen_q, 512):
                    rows = slice(first, min(first + 512, self.seqlen_q))
                    scores = q[batch, head, rows].astype(np.float64) @ key.T / np.sqrt(self.head_dim)
                    if self.causal:
                        scores[self.closed()[rows]] = -np.inf
                    weights = np.exp(scores - scores.max(-1, keepdims=True))
                    out[batch, head, rows] = weights @ value / weights.sum(-1, keepdims=True)
        if path:
            out.tofile(path)
        return out

    def closed(self):
        """Where the causal rule, whose last query sees the last key, closes."""
        rows = np.arange(self.seqlen_q)[:, None] + self.seqlen_k - self.seqlen_q
        return np.arange(self.seqlen_k)[None, :] > rows


def noise(stream, count):
    """The numbers of ../common's noise()."""
    with np.errstate(over="ignore"):
        z = (np.uint64(stream << 40) + np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    low = np.uint64(0xFFFF)
    total = (z & low) + (z >> np.uint64(16) & low) + (z >> np.uint64(32) & low) + (z >> np.uint64(48))
    return ((total.astype(np.float64) - 131070.0) * (3.0**0.5 / 65536.0)).astype(np.float32)


def measure(expected, run, fetch):
    """Runs once, compares, and only then times: run() returns when the device is done, fetch() gives its result."""
    seconds = float(os.environ.get("ATTN_SECONDS", "1"))

    def lap():
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3

    first = lap()
    error = float(np.abs(fetch().astype(np.float64).reshape(expected.shape) - expected).max())
    # What is captured or tuned at the second and third run is no steady state yet.
    runs = [lap()]
    if runs[0] < 1e4 * seconds:
        lap()
        runs = []
        start = time.perf_counter()
        while len(runs) < 5 or (len(runs) < 200 and time.perf_counter() - start < seconds):
            runs.append(lap())
    runs.sort()
    return {"median_ms": runs[len(runs) // 2], "min_ms": runs[0], "runs": len(runs), "first_ms": first,
            "max_abs_err": f"{error:.2e}"}


class Skip(Exception):
    """The engine cannot express the case; the text says why."""


def answer(engine, package, prepare):
    """Prints the line of prepare(case, q, k, v), which gives members of the line, run and fetch; and leaves."""
    # Native libraries print to the standard output: the line goes to the true one, theirs to the errors.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case = Case(os.environ["ATTN_CASE"])
    line = {"engine": engine, "case": case.name, "dtype": "f32"}
    if package:
        line["version"] = metadata.version(package)
    try:
        q, k, v = case.inputs()
        members, run, fetch = prepare(case, q, k, v)
        line |= members | measure(case.reference(q, k, v), run, fetch)
    except Skip as why:
        line["skip"] = str(why)
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(line), file=out, flush=True)
    # Some native libraries crash when they are unloaded.
    sys.stderr.flush()
    os._exit(0)
