// Purpose: numbers of any storage type in arrays of 32-bit words. Arithmetic is f32 whatever the storage.
// A word holds one f32, or two f16 or bf16 elements, the one of even index in its low half.

// The storage types, as the header's constants name them. Host twin: `storage_type` in `kernel/operations.rs`.
const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;

// Which word holds element `index`.
fn word_of(dtype: u32, index: u32) -> u32 {
    return select(index >> 1u, index, dtype == F32);
}

// The bits of element `index`, given the word that holds it; a half type's are the low ones.
fn bits_of(dtype: u32, word: u32, index: u32) -> u32 {
    if (dtype == F32) {
        return word;
    }
    return (word >> ((index & 1u) * 16u)) & 0xffffu;
}

// Where in its word element `index` lies.
fn mask_of(dtype: u32, index: u32) -> u32 {
    if (dtype == F32) {
        return 0xffffffffu;
    }
    return 0xffffu << ((index & 1u) * 16u);
}

// Element `index`, given the word that holds it.
fn widen(dtype: u32, word: u32, index: u32) -> f32 {
    let bits = bits_of(dtype, word, index);
    if (dtype == F32) {
        return bitcast<f32>(bits);
    }
    if (dtype == BF16) {
        return bitcast<f32>(bits << 16u);
    }
    return widen_f16(bits);
}

// By integer arithmetic, which keeps infinities and NaN; WGSL's own conversion leaves them open, and needs a capability.
fn widen_f16(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu;
    let sign = (bits & 0x8000u) << 16u;
    // Below 2^-14: multiples of 2^-24.
    if (magnitude < 0x400u) {
        return bitcast<f32>(bitcast<u32>(f32(magnitude) * 0x1p-24f) | sign);
    }
    // The exponent's bias goes from 15 to 127; that of infinities and NaN, from 31 to 255.
    let rebias = select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
    return bitcast<f32>(((magnitude << 13u) + rebias) | sign);
}

// The bits of x rounded to the storage type, to nearest, ties to even; a half type's bits are the low ones. By integer
// arithmetic, since WGSL leaves the rounding of its own conversions open. NaN stays NaN.
fn narrow(dtype: u32, x: f32) -> u32 {
    if (dtype == F32) {
        return bitcast<u32>(x);
    }
    if (dtype == BF16) {
        return narrow_bf16(bitcast<u32>(x));
    }
    return narrow_f16(bitcast<u32>(x));
}

fn narrow_bf16(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits >> 16u) | 0x40u;
    }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

fn narrow_f16(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return sign | 0x7e00u;
    }
    // From halfway between the largest f16 and the next power of two on: infinity.
    if (magnitude >= 0x477ff000u) {
        return sign | 0x7c00u;
    }
    // From 2^-14 on: normal numbers, whose exponent is biased by 15 instead of 127.
    if (magnitude >= 0x38800000u) {
        return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u);
    }
    // Below: multiples of 2^-24. Half of that and less is zero.
    let exponent = magnitude >> 23u;
    if (exponent < 102u) {
        return sign;
    }
    let significand = (magnitude & 0x7fffffu) | 0x800000u;
    let shift = 126u - exponent;
    return sign | ((significand + (1u << (shift - 1u)) - 1u + ((significand >> shift) & 1u)) >> shift);
}

// The bits of NaN.
fn nan_bits(dtype: u32) -> u32 {
    if (dtype == F32) {
        return 0x7fc00000u;
    }
    return select(0x7e00u, 0x7fc0u, dtype == BF16);
}

// Four elements of a half type.
fn widen_four(dtype: u32, words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(
        widen(dtype, words.x, 0u),
        widen(dtype, words.x, 1u),
        widen(dtype, words.y, 0u),
        widen(dtype, words.y, 1u),
    );
}

fn narrow_four(dtype: u32, x: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(
        narrow(dtype, x.x) | (narrow(dtype, x.y) << 16u),
        narrow(dtype, x.z) | (narrow(dtype, x.w) << 16u),
    );
}
