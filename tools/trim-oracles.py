#!/usr/bin/env python3
"""Cuts a small folder of cases out of an oracle folder, for the tests: trim-oracles.py FROM TO CASE...

Keeps the named cases with the outputs of the forward pass and the tensors that these need. Needs numpy and safetensors.
"""

import hashlib
import json
import pathlib
import struct
import sys

source, target, names = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
manifest = json.loads((source / "manifest.json").read_text())
cases = [case for case in manifest["cases"] if case["name"] in names]
missing = set(names) - {case["name"] for case in cases}
if missing:
    sys.exit(f"no such case: {', '.join(sorted(missing))}")
target.mkdir(parents=True, exist_ok=True)

for case in cases:
    gradients = [role for role in case["outputs"] if role.startswith("d")]
    for part in ("outputs", "tol", "peer_err"):
        case[part] = {role: value for role, value in case.get(part, {}).items() if role not in gradients}
    case["inputs"].pop("d_o", None)
    case["inputs"].pop("d_output", None)
    case["inputs"].pop("d_y", None)
    case["features"] = [feature for feature in case["features"] if feature != "grad"]

files = {}
for file in sorted({case["file"] for case in cases}):
    raw = (source / file).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    wanted = {
        name
        for case in cases
        if case["file"] == file
        for name in (*case["inputs"].values(), *case["outputs"].values())
    }
    kept, data = {}, b""
    # Wide types first, so that every tensor stays aligned.
    order = {"F64": 0, "I64": 0, "F32": 1, "I32": 1}
    for name in sorted(wanted, key=lambda name: (order.get(header[name]["dtype"], 2), name)):
        begin, end = header[name]["data_offsets"]
        kept[name] = {**header[name], "data_offsets": [len(data), len(data) + end - begin]}
        data += raw[8 + length + begin : 8 + length + end]
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + data
    (target / file).write_bytes(whole)
    files[file] = {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest(), "tensors": len(kept)}

lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
head = json.dumps({"format": manifest["format"], "files": files})[:-1]
(target / "manifest.json").write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
print(f"{len(cases)} cases, {sum(file['bytes'] for file in files.values())} bytes")
