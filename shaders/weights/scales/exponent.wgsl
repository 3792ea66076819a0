// Implements interface `scales`: for 32 values a power of two, e8m0. It is halved, for the table of the
// values is doubled. A lane has a word with those of its four blocks.
alias Scales = u32;
const OFFSETS = false;
fn scales_of(at: u32, lane: u32) -> Scales { return word(at + lane / 4u); }
// 2^(e - 128), half of the e8m0 number 2^(e - 127), built from f32 bits; subnormal for e < 2.
fn factors_of(scales: Scales, j: u32) -> vec2<f32> {
    let e = (scales >> (8u * j)) & 255u;
    let bits = select((max(e, 1u) - 1u) << 23u, 0x00200000u << min(e, 1u), e < 2u);
    return vec2(bitcast<f32>(bits), 0.0);
}
