// Purpose: four channels of key or value in workgroup memory, in half the bytes, where both are stored so. Arithmetic is f32 all
// the same. Hook of slot `staged`: defines StagedKv. Needs the shader feature f16.

alias StagedKv = vec4<f16>;
