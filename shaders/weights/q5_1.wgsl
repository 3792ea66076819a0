// Implements interface `weights` for Q5_1: blocks of 32 values in 24 bytes: d and m, f16, 4 bytes with the
// fifth (top) bit of each value, then 16 bytes of nibbles. The low nibbles are values 0 to 15, the high ones
// 16 to 31. A value is d q + m.
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> {
    return unpack2x16float(matrix[(row * ROW_BYTES + i * 24u) / 4u]).xyxy;
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 24u;
    let q =
        fifth(words2(block + 8u + i % 2u * 8u), i % 4u / 2u * 4u, matrix[block / 4u + 1u] >> (i % 4u * 8u));
    return eight(q, 0u, 31u, s.x, s.y);
}
