// Implements interface `weights` for Q4_0: blocks of 32 values in 18 bytes: an f16 scale d, then 16 bytes of
// nibbles. The low nibbles are values 0 to 15, the high ones 16 to 31. A value is d (nibble - 8).
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(half(row * ROW_BYTES + i * 18u)); }
fn weights8(row: u32, i: u32, d: vec4<f32>) -> Eight {
    let q = bytes8(row * ROW_BYTES + i / 4u * 18u + 2u + i % 2u * 8u);
    return eight(q, i % 4u / 2u * 4u, 15u, d.x, -8.0 * d.x);
}
