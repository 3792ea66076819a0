// Implements interface `weights` for Q4_1: blocks of 32 values in 20 bytes: d and m, f16, then 16 bytes of
// nibbles. The low nibbles are values 0 to 15, the high ones 16 to 31. A value is d nibble + m.
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> {
    return unpack2x16float(matrix[(row * ROW_BYTES + i * 20u) / 4u]).xyxy;
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let q = words2(row * ROW_BYTES + i / 4u * 20u + 4u + i % 2u * 8u);
    return eight(q, i % 4u / 2u * 4u, 15u, s.x, s.y);
}
