// Implements interface `scales`: a scale and an offset for 32 values, f16 each. A lane has those of its four
// blocks.
alias Scales = vec4<u32>;
const OFFSETS = true;
fn scales_of(at: u32, lane: u32) -> Scales { return matrix[at / 4u + lane / 4u]; }
fn factors_of(scales: Scales, j: u32) -> vec2<f32> { return unpack2x16float(of4(scales, j)); }
