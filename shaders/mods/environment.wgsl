// Purpose: what the caller's own functions may use besides their arguments and captures.

// A score that closes its position: WGSL cannot spell -inf. It is the lowest finite f32.
const NEGATIVE_INFINITY: f32 = -3.4028234663852886e38;
