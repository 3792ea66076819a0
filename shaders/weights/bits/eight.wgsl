// Implements interface `bits`: eight bits a value. A lane has two words for each group of eight, those of the
// first two groups in one plane and those of the last two in another.
struct Bits { first: vec4<u32>, last: vec4<u32> }
const LOW_ONE = 256.0;
const HIGH_ONE = 256.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row / 4u + lane;
    return Bits(matrix[at], matrix[at + LANES]);
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let words = select(bits.first, bits.last, j >= 2u);
    let two = select(words.xy, words.zw, j % 2u == 1u);
    return Eight(
        floats(bytes_at(15u, two.x), 0x7f8000u, LOW_ONE),
        floats(bytes_at(15u, two.y), 0x7f8000u, HIGH_ONE),
    );
}
