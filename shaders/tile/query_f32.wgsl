// Purpose: four channels of query in workgroup memory. Hook of slot `staged`: defines StagedQuery.

alias StagedQuery = vec4<f32>;
