// What the block formats share: packed rows as bytes at any address. The program says ROW_BYTES: from one row to
// the next, a multiple of four.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override ROW_BYTES: u32;
@group(1) @binding(0) var<storage, read> matrix: array<u32>;
fn bytes4(at: u32) -> u32 {
    let word = matrix[at / 4u];
    let shift = 8u * (at % 4u);
    if shift == 0u { return word; }
    return (word >> shift) | (matrix[at / 4u + 1u] << (32u - shift));
}
fn byte(at: u32) -> u32 { return (matrix[at / 4u] >> (8u * (at % 4u))) & 255u; }
// Two bytes at an even address.
fn half(at: u32) -> f32 { return unpack2x16float(matrix[at / 4u] >> (8u * (at % 4u))).x; }
// Four values of a few bits, one in each byte.
fn bits4(word: u32, shift: u32, mask: u32) -> vec4<f32> { return vec4<f32>(unpack4xU8((word >> shift) & (mask * 0x01010101u))); }
// Four bits to one in each byte.
fn spread(bits: u32) -> u32 {
    return (bits & 1u) | ((bits & 2u) << 7u) | ((bits & 4u) << 14u) | ((bits & 8u) << 21u);
}
