// Implements interface `bits`: four bits a value, as in bits/four.wgsl, each an index into a table of 16
// signed bytes.
override TABLE0: u32; // entries 0 to 3, the first in the lowest byte
override TABLE1: u32;
override TABLE2: u32;
override TABLE3: u32;
alias Bits = vec4<u32>;
const EVEN_ONE = 0.0;
const ODD_ONE = 0.0;
fn bits_of(row: u32, lane: u32) -> Bits { return matrix[row / 4u + lane]; }
fn looked_up(nibbles: vec4<u32>) -> vec4<f32> {
    let lower = select(vec4(TABLE1), vec4(TABLE0), nibbles < vec4(4u));
    let upper = select(vec4(TABLE3), vec4(TABLE2), nibbles < vec4(12u));
    let entry = select(upper, lower, nibbles < vec4(8u)) >> (8u * (nibbles % vec4(4u)));
    return vec4<f32>(vec4<i32>(entry << vec4(24u)) >> vec4(24u));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of4(bits, j);
    let even = looked_up(unpack4xU8(q & 0x0f0f0f0fu)); // values 0, 4, 1 and 5
    let odd = looked_up(unpack4xU8((q >> 4u) & 0x0f0f0f0fu)); // values 2, 6, 3 and 7
    return Eight(vec4(even.xz, odd.xz), vec4(even.yw, odd.yw));
}
