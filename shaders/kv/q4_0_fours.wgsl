// Implements interface `kv_read` for blocks of 32 numbers of four bits with a scale, as q4_0_write.wgsl
// writes them.
#import kv
@group(1) @binding(1) var<storage, read> cache: array<u32>;
// The i-th vec4 of a key or a value that stands at `at`.
fn kv4(at: u32, i: u32) -> vec4<f32> {
    let words = at / KV_WIDTH * (KV_WIDTH / 8u + KV_WIDTH / 32u);
    let number = at % KV_WIDTH + 4u * i;
    let bits = cache[words + number / 32u * 4u + number % 16u / 4u] >> (number % 32u / 16u * 4u);
    let quants = vec4(bits, bits >> 8u, bits >> 16u, bits >> 24u) & vec4(15u);
    return (vec4<f32>(quants) - 8.0) * bitcast<f32>(cache[words + KV_WIDTH / 8u + number / 32u]);
}
