// Implements interface `scales`: for 32 values a power of two, 2^(e - 127), of which e is a byte. A lane has
// a word with those of its four blocks. The power is multiplied by 2^14, because bits/e2m1.wgsl divides by
// it: no weight is so large that this would be too much.
alias Scales = u32;
const OFFSETS = false;
fn scales_of(at: u32, lane: u32) -> Scales { return word(at + lane / 4u); }
fn factors_of(scales: Scales, j: u32) -> vec2<f32> {
    let e = (scales >> (8u * j)) & 255u;
    return vec2(bitcast<f32>(min(e + 14u, 255u) << 23u), 0.0);
}
