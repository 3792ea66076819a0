// Implements interface `weights` for formats without blocks, whose values interface `values` reads. The
// interface reads a matrix in two ways: weights8(row, i) gives the i-th group of eight values of a row. And a
// row is dealt to lanes, each of which takes four such groups: `load` reads what a lane needs of a row, and
// raw8 gives its j-th group, which group eight_at of the row is. If SCALED, these are raw numbers instead: a
// value is factors.x * (raw - EVEN_ONE - ZERO) + factors.y, with ODD_ONE in place of EVEN_ONE for values 2,
// 3, 6 and 7 of a group.
//
// The importing program defines COLUMNS8, the groups of eight values in a row.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override LANES: u32; // lanes in a row, a multiple of 32
#import values
const SCALED = false;
const OFFSETS = false;
const EVEN_ONE = 0.0;
const ODD_ONE = 0.0;
const ZERO = 0.0;
// Neighbours read adjacent groups. The last lanes may have groups that are past the end of the row: they read
// the last one.
struct Packed { a: Group, b: Group, c: Group, d: Group }
fn load(row: u32, lane: u32) -> Packed {
    return Packed(group(row, lane, 0u), group(row, lane, 1u), group(row, lane, 2u), group(row, lane, 3u));
}
fn eight_at(lane: u32, j: u32) -> u32 { return lane / 32u * 128u + j * 32u + lane % 32u; }
fn group(row: u32, lane: u32, j: u32) -> Group {
    return group_of(row * COLUMNS8 + min(eight_at(lane, j), COLUMNS8 - 1u));
}
fn raw8(p: Packed, j: u32) -> Eight {
    switch j {
        case 0u: { return values(p.a); }
        case 1u: { return values(p.b); }
        case 2u: { return values(p.c); }
        default: { return values(p.d); }
    }
}
fn factors(p: Packed, j: u32) -> vec2<f32> { return vec2(1.0, 0.0); }
fn weights8(row: u32, i: u32) -> Eight { return values(group_of(row * COLUMNS8 + i)); }
