// Implements interface `bits`: two bits a value. A lane has a word for each two groups of eight; byte k of it
// holds, two bits each, value k of both and value 4 + k of both.
alias Bits = vec2<u32>;
const LOW_ONE = 64.0;
const HIGH_ONE = 4.0;
fn bits_of(row: u32, lane: u32) -> Bits { return vec2(word(row + lane), word(row + LANES + lane)); }
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = bytes_at(17u, of2(bits, j / 2u) >> (j % 2u * 2u));
    return Eight(floats(q, 0x60000u, LOW_ONE), floats(q, 0x600000u, HIGH_ONE));
}
