// Implements interface `matrices` for cooperative matrices of 16 by 16 values.
const SIZE = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

const ELEMENTS = 2u;
var<workgroup> tiles: array<vec4<f16>, TILES>;

// A value beyond the range of f16 becomes infinite in f16, and then the largest number.
fn finite(v: vec4<f16>) -> vec4<f16> { return clamp(v, vec4(-65504.0h), vec4(65504.0h)); }
fn put(at: u32, v: Eight) {
    tiles[ELEMENTS * at] = finite(vec4<f16>(v.low));
    tiles[ELEMENTS * at + 1u] = finite(vec4<f16>(v.high));
}
