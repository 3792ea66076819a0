// Implements interface `weights` for MXFP4: blocks of 32 values in 17 bytes: an e8m0 power of two, then 16
// bytes of nibbles, each an e2m1 number. The low nibbles are values 0 to 15, the high ones 16 to 31. Here the
// e2m1 number is doubled, which makes it an integer, and the power is halved.
#import bytes
// Twice the e2m1 numbers: 0 1 2 3 4 6 8 12 and their negatives.
fn e2m1(nibbles: vec4<u32>) -> vec4<f32> {
    let magnitude = nibbles & vec4(7u);
    let exponent = magnitude >> vec4(1u);
    let large = (vec4(2u) | (magnitude & vec4(1u))) << (max(exponent, vec4(1u)) - vec4(1u));
    let value = vec4<f32>(select(large, magnitude, magnitude < vec4(2u)));
    return select(value, -value, nibbles >= vec4(8u));
}
// 2^(e - 128), half of the e8m0 number 2^(e - 127), built from f32 bits; subnormal for e < 2.
fn shared32(row: u32, i: u32) -> vec4<f32> {
    let e = byte(row * ROW_BYTES + i * 17u);
    return vec4(bitcast<f32>(select((max(e, 1u) - 1u) << 23u, 0x00200000u << min(e, 1u), e < 2u)));
}
fn weights8(row: u32, i: u32, d: vec4<f32>) -> Eight {
    let q = bytes8(row * ROW_BYTES + i / 4u * 17u + 1u + i % 2u * 8u) >> vec2(i % 4u / 2u * 4u);
    return Eight(d * e2m1(unpack4xU8(q.x & 0x0f0f0f0fu)), d * e2m1(unpack4xU8(q.y & 0x0f0f0f0fu)));
}
