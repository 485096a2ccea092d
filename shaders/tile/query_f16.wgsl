// Purpose: four channels of query in workgroup memory, in half the bytes, where query is stored so. Hook of slot `staged`: defines
// StagedQuery. Needs the shader feature f16.

alias StagedQuery = vec4<f16>;
