// Implements interface `weights` for the block formats. On a GPU their rows are laid out in planes, as
// src/weights/planes.rs says: `bits` reads the plane of the quants, `scales` that of their scales. A value is
// scale * (quant - ZERO) + offset.
//
// A lane takes 32 columns of a row: of each of four blocks of 32 columns the same group of eight.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override LANES: u32;     // lanes in a row, a multiple of four
override ROW_WORDS: u32; // words from one row to the next, a multiple of four
override SCALES_AT: u32; // words from the start of a row to its scales, a multiple of four
override ZERO: f32;
@group(1) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
fn word(at: u32) -> u32 { return matrix[at / 4u][at % 4u]; }
// The bytes of a word, one per component, each with its lowest bit moved to bit `at`, which is above 8.
fn bytes_at(at: u32, word: u32) -> vec4<u32> {
    let third = select(word >> (16u - at), word << (at - 16u), at >= 16u);
    return vec4(word << at, word << (at - 8u), third, word >> (24u - at));
}
// Numbers whose highest fraction bits are some bits of a quant: no conversion from integers, which is slow on
// some GPUs. With the exponent of `one` fitting the mask's place, each is one + quant, exactly.
fn floats(bits: vec4<u32>, mask: u32, one: f32) -> vec4<f32> {
    return bitcast<vec4<f32>>((bits & vec4(mask)) | vec4(bitcast<u32>(one)));
}
// A component of a vector. No index: where it is not constant, some compilers would put the vector in memory.
fn of4(v: vec4<u32>, i: u32) -> u32 { return select(of2(v.xy, i), of2(v.zw, i - 2u), i >= 2u); }
fn of2(v: vec2<u32>, i: u32) -> u32 { return select(v.x, v.y, i == 1u); }
#import bits
#import scales
const SCALED = true;
// What a lane loads of a row.
struct Packed { bits: Bits, scales: Scales }
fn load(row: u32, lane: u32) -> Packed {
    let at = row * ROW_WORDS;
    return Packed(bits_of(at, lane), scales_of(at + SCALES_AT, lane));
}
// The j-th of a lane's groups of eight columns in its row.
fn eight_at(lane: u32, j: u32) -> u32 { return lane / 4u * 16u + j * 4u + lane % 4u; }
// The quants of the j-th group of eight, plus LOW_ONE or HIGH_ONE.
fn raw8(p: Packed, j: u32) -> Eight { return quants8(p.bits, j); }
// The scale (x) and the offset (y) of the j-th group of eight.
fn factors(p: Packed, j: u32) -> vec2<f32> { return factors_of(p.scales, j); }
// The i-th group of eight values in a row.
fn weights8(row: u32, i: u32) -> Eight {
    let j = i / 4u % 4u;
    let p = load(row, i / 16u * 4u + i % 4u);
    let raw = raw8(p, j);
    let f = factors(p, j);
    return Eight(f.x * (raw.low - (LOW_ONE + ZERO)) + f.y, f.x * (raw.high - (HIGH_ONE + ZERO)) + f.y);
}
