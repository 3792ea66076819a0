// Implements interface `kv_read` for blocks of 32 signed bytes with a scale, as q8_0_write.wgsl writes them.
#import kv
@group(1) @binding(1) var<storage, read> cache: array<u32>;
// The i-th vec4 of a key or a value that stands at `at`.
fn kv4(at: u32, i: u32) -> vec4<f32> {
    let words = at / KV_WIDTH * (KV_WIDTH / 4u + KV_WIDTH / 32u);
    let number = at % KV_WIDTH + 4u * i;
    let bytes = cache[words + number / 4u];
    let quants = vec4<i32>(vec4(bytes << 24u, bytes << 16u, bytes << 8u, bytes)) >> vec4(24u);
    return vec4<f32>(quants) * bitcast<f32>(cache[words + KV_WIDTH / 4u + number / 32u]);
}
