// Implements interface `bits`: four bits a value. A lane has a word for each group of eight; byte k of it
// holds value k in its low nibble and value 4 + k in its high one.
alias Bits = vec4<u32>;
const LOW_ONE = 256.0;
const HIGH_ONE = 16.0;
fn bits_of(row: u32, lane: u32) -> Bits { return matrix[row / 4u + lane]; }
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = bytes_at(15u, of4(bits, j));
    return Eight(floats(q, 0x78000u, LOW_ONE), floats(q, 0x780000u, HIGH_ONE));
}
