// interface `weights`: Q5_1, blocks of 32 values: d, m f16, 32 fifth bits, 16 bytes of low and high nibbles.
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> {
    return unpack2x16float(matrix[(row * ROW_BYTES + i * 24u) / 4u]).xyxy;
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 24u;
    let q = fifth(words2(block + 8u + i % 2u * 8u), i % 4u / 2u * 4u, matrix[block / 4u + 1u] >> (i % 4u * 8u));
    return eight(q, 0u, 31u, s.x, s.y);
}
