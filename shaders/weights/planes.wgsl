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
// The eight values of a group come in four pairs, values 2p and 2p + 1. In a word, the lower half belongs to
// the first values of the pairs and the upper half to the second ones, and nibble p of each half to pair p.
// So one operation makes two f16 numbers of bits of two quants, as the highest bits of their fractions: each
// is a power of two plus the quant, exactly, and that power is EVEN_ONE for pairs 0 and 2, ODD_ONE for pairs
// 1 and 3. No integers are converted, which is slow on some GPUs, and many multiply f16 by f32 as they are.
fn ones() -> vec4<u32> { return vec2(pack2x16float(vec2(EVEN_ONE)), pack2x16float(vec2(ODD_ONE))).xyxy; }
fn numbers(pairs: vec4<u32>) -> Eight {
    return Eight(
        vec4(unpack2x16float(pairs.x), unpack2x16float(pairs.y)),
        vec4(unpack2x16float(pairs.z), unpack2x16float(pairs.w)),
    );
}
// The fields of the four pairs: of pairs 0 and 1 from `first`, of 2 and 3 from `last`. In each half of these,
// the field of the even pair is at `mask`, and that of the odd pair four bits above.
fn fields(first: u32, last: u32, mask: u32) -> vec4<u32> {
    let even = (mask << 16u) | mask;
    return vec4(first, first, last, last) & vec2(even, even << 4u).xyxy;
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
// The quants of the j-th group of eight, plus EVEN_ONE or ODD_ONE.
fn raw8(p: Packed, j: u32) -> Eight { return quants8(p.bits, j); }
// The scale (x) and the offset (y) of the j-th group of eight.
fn factors(p: Packed, j: u32) -> vec2<f32> { return factors_of(p.scales, j); }
// The i-th group of eight values in a row.
fn weights8(row: u32, i: u32) -> Eight {
    let j = i / 4u % 4u;
    let p = load(row, i / 16u * 4u + i % 4u);
    let raw = raw8(p, j);
    let f = factors(p, j);
    let zeros = ZERO + vec2(EVEN_ONE, ODD_ONE).xxyy;
    return Eight(f.x * (raw.low - zeros) + f.y, f.x * (raw.high - zeros) + f.y);
}
