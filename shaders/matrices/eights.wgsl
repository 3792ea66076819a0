// Implements interface `matrices` for cooperative matrices of 8 by 8 values. The interface gives the types of
// matrices, and the workgroup memory that they are loaded from: `tiles`, TILES elements. put(at, v) writes
// the at-th group of eight values, in ELEMENTS elements. The importing program defines TILES.
const SIZE = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;

// Scalars, because Metal loads matrices from nothing else.
const ELEMENTS = 8u;
var<workgroup> tiles: array<f16, TILES>;

// Values beyond the range of f16 become the largest number, before they can become infinite: Metal's compiler
// assumes that there are no infinities.
fn finite(v: vec4<f32>) -> vec4<f16> { return vec4<f16>(clamp(v, vec4(-65504.0), vec4(65504.0))); }
fn put(at: u32, v: Eight) {
    let low = finite(v.low);
    let high = finite(v.high);
    tiles[ELEMENTS * at] = low.x;
    tiles[ELEMENTS * at + 1u] = low.y;
    tiles[ELEMENTS * at + 2u] = low.z;
    tiles[ELEMENTS * at + 3u] = low.w;
    tiles[ELEMENTS * at + 4u] = high.x;
    tiles[ELEMENTS * at + 5u] = high.y;
    tiles[ELEMENTS * at + 6u] = high.z;
    tiles[ELEMENTS * at + 7u] = high.w;
}
