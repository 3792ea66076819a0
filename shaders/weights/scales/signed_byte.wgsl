// Implements interface `scales`: for 256 values d, f16; for 16 of them a signed byte that multiplies d. A
// lane has a word with those bytes of its four blocks: the halves of a block have words of their own.
struct Scales { scales: u32, d: f32 }
const OFFSETS = false;
fn scales_of(at: u32, lane: u32) -> Scales {
    let d = word(at + LANES / 2u + lane / 16u) >> (lane / 8u % 2u * 16u);
    return Scales(word(at + lane / 2u), unpack2x16float(d).x);
}
fn factors_of(s: Scales, j: u32) -> vec2<f32> {
    return vec2(s.d * f32(bitcast<i32>(s.scales << (24u - 8u * j)) >> 24u), 0.0);
}
