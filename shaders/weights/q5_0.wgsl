// Implements interface `weights` for Q5_0: blocks of 32 values in 22 bytes: an f16 scale d, 4 bytes with the
// fifth (top) bit of each value, then 16 bytes of nibbles. The low nibbles are values 0 to 15, the high ones
// 16 to 31. A value is d (q - 16).
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(half(row * ROW_BYTES + i * 22u)); }
fn weights8(row: u32, i: u32, d: vec4<f32>) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 22u;
    let q = fifth(bytes8(block + 6u + i % 2u * 8u), i % 4u / 2u * 4u, bytes8(block + 2u).x >> (i % 4u * 8u));
    return eight(q, 0u, 31u, d.x, -16.0 * d.x);
}
