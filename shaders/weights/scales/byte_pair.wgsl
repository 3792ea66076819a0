// Implements interface `scales`: for 256 values d and dmin, f16; for 32 of them a byte that multiplies d, and
// one that multiplies dmin. A lane has a word with those bytes of its four blocks for each.
struct Scales { scales: u32, offsets: u32, d: u32 }
const OFFSETS = true;
fn scales_of(at: u32, lane: u32) -> Scales {
    let both = at + lane / 4u * 2u;
    return Scales(word(both), word(both + 1u), word(at + LANES / 2u + lane / 8u));
}
fn factors_of(s: Scales, j: u32) -> vec2<f32> {
    let bytes = vec2(s.scales >> (8u * j), s.offsets >> (8u * j)) & vec2(255u);
    return unpack2x16float(s.d) * vec2(1.0, -1.0) * vec2<f32>(bytes);
}
