// Purpose: four channels of key or value in workgroup memory. Hook of slot `staged`: defines StagedKv.

alias StagedKv = vec4<f32>;
