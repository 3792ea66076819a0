// Implements interface `weights` for Q3_K: blocks of 256 values in 110 bytes: 32 bytes of high bits, 64 bytes
// with 2 low bits per value, 16 scales of 6 bits each, then d, f16. If the high bit is 0, the value is 4
// lower.
#import bytes
// Scale of the first 16 of 32 values (xy), and of the last 16 (zw).
fn shared32(row: u32, i: u32) -> vec4<f32> {
    let block = row * ROW_BYTES + i / 8u * 110u;
    let s = i % 8u * 2u; // index of the first of the two scales
    let low = (bytes2(block + 96u + s % 8u) >> vec2(s / 8u * 4u)) & vec2(15u);
    let high = (bytes2(block + 104u + s % 4u) >> vec2(s / 4u * 2u)) & vec2(3u);
    return (half(block + 108u) * (vec2<f32>(low | (high << vec2(4u))) - 32.0)).xxyy;
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 110u;
    let v = i % 32u * 8u; // index of the first of the eight values in the block
    let low =
        (bytes8(block + 32u + v / 128u * 32u + v % 32u) >> vec2(v % 128u / 32u * 2u)) & vec2(0x03030303u);
    let high = (bytes8(block + v % 32u) >> vec2(v / 32u)) & vec2(0x01010101u);
    let by = select(s.x, s.z, v % 32u >= 16u);
    return eight(low | (high << vec2(2u)), 0u, 7u, by, -4.0 * by);
}
