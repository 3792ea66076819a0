// Implements interface `kv_read` for pairs of f16 and head dimensions that are a multiple of four.
#import kv
@group(1) @binding(1) var<storage, read> cache: array<vec2<u32>>;
// The i-th vec4 of a key or a value that stands at `at`.
fn kv4(at: u32, i: u32) -> vec4<f32> {
    let four = cache[at / 4u + i];
    return vec4(unpack2x16float(four.x), unpack2x16float(four.y));
}
