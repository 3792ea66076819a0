// Shared by most block formats: reads packed rows as bytes at any address. Addresses are in bytes.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override ROW_BYTES: u32; // bytes from one row to the next, a multiple of four
@group(1) @binding(0) var<storage, read> matrix: array<u32>;
// Eight bytes at any address.
fn bytes8(at: u32) -> vec2<u32> {
    let low = matrix[at / 4u];
    let high = matrix[at / 4u + 1u];
    let shift = 8u * (at % 4u);
    if shift == 0u { return vec2(low, high); }
    return (vec2(low, high) >> vec2(shift)) | (vec2(high, matrix[at / 4u + 2u]) << vec2(32u - shift));
}
// Eight bytes at a multiple of four.
fn words2(at: u32) -> vec2<u32> { return vec2(matrix[at / 4u], matrix[at / 4u + 1u]); }
fn byte(at: u32) -> u32 { return (matrix[at / 4u] >> (8u * (at % 4u))) & 255u; }
// Two bytes at an even address, one per component. Do not replace this by two calls of `byte`: FXC gets the
// address of the second wrong.
fn bytes2(at: u32) -> vec2<u32> {
    let both = matrix[at / 4u] >> (8u * (at % 4u));
    return vec2(both & 255u, (both >> 8u) & 255u);
}
// An f16 at an even address.
fn half(at: u32) -> f32 { return unpack2x16float(matrix[at / 4u] >> (8u * (at % 4u))).x; }
// The four values (byte >> shift) & mask of a word's bytes.
fn bits4(word: u32, shift: u32, mask: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((word >> shift) & (mask * 0x01010101u)));
}
// Eight dequantised values d q + m, with q = (byte >> shift) & mask.
fn eight(words: vec2<u32>, shift: u32, mask: u32, d: f32, m: f32) -> Eight {
    return Eight(d * bits4(words.x, shift, mask) + m, d * bits4(words.y, shift, mask) + m);
}
// Moves bit i of the low four bits to the lowest bit of byte i.
fn spread(bits: u32) -> u32 {
    return (bits & 1u) | ((bits & 2u) << 7u) | ((bits & 4u) << 14u) | ((bits & 8u) << 21u);
}
// Eight 5-bit values, one per byte: the nibble at `shift` of each byte, and above it a bit of `bits`.
fn fifth(words: vec2<u32>, shift: u32, bits: u32) -> vec2<u32> {
    let nibbles = (words >> vec2(shift)) & vec2(0x0f0f0f0fu);
    return nibbles | (vec2(spread(bits), spread(bits >> 4u)) << vec2(4u));
}
