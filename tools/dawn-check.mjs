// Compiles WGSL files with Dawn: node dawn-check.mjs FOLDER_OF_PACKAGE FILE...   (tools/dawn-check.sh calls it)
// Prints each message with file, line and the part of the kernel that it is in; fails if there was an error.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [packageFolder, ...files] = process.argv.slice(2);
const entry = path.resolve(packageFolder, "node_modules/webgpu/index.js");
const { create, globals } = await import(pathToFileURL(entry));
Object.assign(globalThis, globals);

// "null" is a device that validates as any other and computes nothing.
const backend = process.env.DAWN_BACKEND ?? "null";
const gpu = create([`backend=${backend}`]);
const adapter = await gpu.requestAdapter();
if (!adapter) {
  console.error(`dawn-check: Dawn finds no adapter for backend ${backend}`);
  process.exit(1);
}
const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup, maxStorageBuffersPerShaderStage } =
  adapter.limits;
const device = await adapter.requestDevice({
  requiredFeatures: ["shader-f16", "subgroups"].filter((feature) => adapter.features.has(feature)),
  requiredLimits: { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup, maxStorageBuffersPerShaderStage },
});

/** The compiler's messages, and the error of making a pipeline when the module has none. */
async function compile(code) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const broken = messages.some((message) => message.type === "error");
  if (!broken) device.createComputePipeline({ layout: "auto", compute: { module } });
  const error = await device.popErrorScope();
  return { messages: [...messages], pipelineError: broken ? undefined : error?.message };
}

/** Whether Dawn takes a text: else none of the answers below would mean anything. */
async function accepts(code) {
  const { messages, pipelineError } = await compile(code);
  return messages.length === 0 && pipelineError === undefined;
}

const entryPoint = (body) => `
  @group(0) @binding(0) var<storage, read_write> data: array<f32, 64>;
  @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) { ${body} }`;
const f16 = entryPoint("data[lane] = f32(f16(data[lane]));");
const subgroups = entryPoint("data[lane] = subgroupAdd(data[lane]);");
const known = [
  [true, entryPoint("workgroupBarrier(); data[lane] = 1.0;")],
  [false, entryPoint("if (data[lane] > 0.0) { workgroupBarrier(); }")],
  [false, entryPoint("data[lane] = missing(lane);")],
];
// What kernel/source.rs says of its dialect `Web`.
if (device.features.has("shader-f16")) known.push([true, `enable f16; ${f16}`], [false, f16]);
if (device.features.has("subgroups")) known.push([true, `enable subgroups; ${subgroups}`], [false, subgroups]);
for (const [expected, code] of known) {
  if ((await accepts(code)) !== expected) {
    console.error(`dawn-check: Dawn ${expected ? "refuses" : "accepts"}, which was not expected:\n${code}`);
    process.exit(1);
  }
}

let failed = 0;
let tooLarge = 0;
for (const file of files) {
  const code = fs.readFileSync(file, "utf8");
  const lines = code.split("\n");
  const { messages, pipelineError } = await compile(code);
  for (const { type, message, lineNum, linePos } of messages) {
    const part = lines.slice(0, lineNum).findLast((line) => line.startsWith("// ---- "))?.slice(8, -5);
    console.error(`${file}:${lineNum}:${linePos}: ${type}: ${message}${part ? ` (in ${part})` : ""}`);
    console.error(`    ${lines[lineNum - 1]?.trim().slice(0, 160)}`);
  }
  // The null device has WebGPU's default limits. Kernels for larger ones, which the plan keeps to, are checked but for these.
  const isTooLarge = backend === "null" && /use of workgroup storage|number of storage buffers/.test(pipelineError ?? "");
  if (isTooLarge) tooLarge++;
  else if (pipelineError) console.error(`${file}: error: ${pipelineError}`);
  if (messages.some(({ type }) => type === "error") || (pipelineError && !isTooLarge)) failed++;
}
const limits = tooLarge ? ` (${tooLarge} of them need more workgroup memory or buffers than WebGPU's default limits)` : "";
console.log(`dawn-check: ${files.length - failed} of ${files.length} kernels accepted${limits}`);
// Dawn's threads would keep the process alive.
process.exit(failed || !files.length ? 1 : 0);
