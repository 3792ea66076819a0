// Implements interface `scales`: a scale for 32 values, f16. A lane has those of its four blocks.
alias Scales = vec2<u32>;
const OFFSETS = false;
fn scales_of(at: u32, lane: u32) -> Scales {
    let both = at + lane / 4u * 2u;
    return vec2(word(both), word(both + 1u));
}
fn factors_of(scales: Scales, j: u32) -> vec2<f32> {
    return vec2(unpack2x16float(of2(scales, j / 2u) >> (16u * (j % 2u))).x, 0.0);
}
