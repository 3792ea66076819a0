// Implements interface `weights` for Q6_K: blocks of 256 values in 210 bytes: 128 bytes of nibbles, 64 bytes
// with 2 high bits per value, 16 scales, i8, then d, f16.
#import bytes
// Scale of the first 16 of 32 values (xy), and of the last 16 (zw).
fn shared32(row: u32, i: u32) -> vec4<f32> {
    let block = row * ROW_BYTES + i / 8u * 210u;
    let scales = vec2<f32>(vec2<i32>(bytes2(block + 192u + i % 8u * 2u) << vec2(24u)) >> vec2(24u));
    return (half(block + 208u) * scales).xxyy;
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 210u;
    let v = i % 32u * 8u; // index of the first of the eight values in the block
    let within = v % 128u;
    let q = bytes8(block + v / 128u * 64u + within % 64u) >> vec2(within / 64u * 4u);
    let top = bytes8(block + 128u + v / 128u * 32u + within % 32u) >> vec2(within / 32u * 2u);
    let both = (q & vec2(0x0f0f0f0fu)) | ((top & vec2(0x03030303u)) << vec2(4u));
    let by = select(s.x, s.z, v % 32u >= 16u);
    return eight(both, 0u, 63u, by, -32.0 * by);
}
