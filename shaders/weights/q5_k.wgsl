// Implements interface `weights` for Q5_K: blocks of 256 values in 176 bytes: d and dmin, f16, 12 bytes of
// scales and offsets (see k_pairs.wgsl), 32 bytes of fifth (top) bits, then 128 bytes of nibbles.
#import k_pairs
fn shared32(row: u32, i: u32) -> vec4<f32> {
    return scale_and_offset(row * (ROW_BYTES / 8u) + i / 8u * 22u, i % 8u);
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let block = row * (ROW_BYTES / 8u) + i / 32u * 22u;
    let e = i % 32u; // index of the group of eight in the block
    let nibbles = (matrix[block + 6u + e / 8u * 4u + e % 4u] >> vec2(e / 4u % 2u * 4u)) & vec2(0x0f0f0f0fu);
    let fifth = (matrix[block + 2u + e % 4u] >> vec2(e / 4u)) & vec2(0x01010101u);
    let q = nibbles | (fifth << vec2(4u));
    return Eight(s.x * bits4(q.x) + s.y, s.x * bits4(q.y) + s.y);
}
