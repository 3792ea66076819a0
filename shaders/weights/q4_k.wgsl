// Implements interface `weights` for Q4_K: blocks of 256 values in 144 bytes: d and dmin, f16, 12 bytes of
// scales and offsets (see k_pairs.wgsl), then 128 bytes of nibbles.
#import k_pairs
fn shared32(row: u32, i: u32) -> vec4<f32> {
    return scale_and_offset(row * (ROW_BYTES / 8u) + i / 8u * 18u, i % 8u);
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let e = i % 32u; // index of the group of eight in the block
    let q = matrix[row * (ROW_BYTES / 8u) + i / 32u * 18u + 2u + e / 8u * 4u + e % 4u];
    let nibbles = (q >> vec2(e / 4u % 2u * 4u)) & vec2(0x0f0f0f0fu);
    return Eight(s.x * bits4(nibbles.x) + s.y, s.x * bits4(nibbles.y) + s.y);
}
