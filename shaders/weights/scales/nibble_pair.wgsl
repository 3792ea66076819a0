// Implements interface `scales`: for 256 values d and dmin, f16; for 16 of them a byte: the low nibble
// multiplies d, the high one dmin. A lane has a word with those bytes of its four blocks: the halves of a
// block have words of their own.
struct Scales { both: u32, d: u32 }
const OFFSETS = true;
fn scales_of(at: u32, lane: u32) -> Scales {
    return Scales(word(at + lane / 2u), word(at + LANES / 2u + lane / 8u));
}
fn factors_of(s: Scales, j: u32) -> vec2<f32> {
    let nibbles = vec2(s.both >> (8u * j), s.both >> (8u * j + 4u)) & vec2(15u);
    return unpack2x16float(s.d) * vec2(1.0, -1.0) * vec2<f32>(nibbles);
}
