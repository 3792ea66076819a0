// Implements interface `weights` for IQ4_NL: blocks of 32 values in 18 bytes: an f16 scale d, then 16 bytes
// of nibbles, each an index into TABLE. The low nibbles are values 0 to 15, the high ones 16 to 31. A value
// is d TABLE[nibble].
#import bytes
const TABLE = array<f32, 16>(
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
);
fn looked_up(word: u32, shift: u32) -> vec4<f32> {
    let q = unpack4xU8((word >> shift) & 0x0f0f0f0fu);
    var table = TABLE;
    return vec4(table[q.x], table[q.y], table[q.z], table[q.w]);
}
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(half(row * ROW_BYTES + i * 18u)); }
fn weights8(row: u32, i: u32, d: vec4<f32>) -> Eight {
    let q = bytes8(row * ROW_BYTES + i / 4u * 18u + 2u + i % 2u * 8u);
    let shift = i % 4u / 2u * 4u;
    return Eight(d * looked_up(q.x, shift), d * looked_up(q.y, shift));
}
