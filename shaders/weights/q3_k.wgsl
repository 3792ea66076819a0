// interface `weights`: Q3_K, blocks of 256 values: 32 bytes of high bits, 64 bytes of 2 low bits a value, 16 scales
// of 6 bits, d f16. Where the high bit is absent, the value is four less.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 110u;
    let v = i % 32u * 8u; // the first value's place in the block
    let s = v / 16u;
    let low_scale = (byte(block + 96u + s % 8u) >> (s / 8u * 4u)) & 15u;
    let high_scale = (byte(block + 104u + s % 4u) >> (s / 4u * 2u)) & 3u;
    let scale = half(block + 108u) * (f32(low_scale | (high_scale << 4u)) - 32.0);
    let q = block + 32u + v / 128u * 32u + v % 32u;
    let shift = v % 128u / 32u * 2u;
    let mask = block + v % 32u;
    let absent_low = 4.0 - 4.0 * bits4(bytes4(mask), v / 32u, 1u);
    let absent_high = 4.0 - 4.0 * bits4(bytes4(mask + 4u), v / 32u, 1u);
    return Eight(
        scale * (bits4(bytes4(q), shift, 3u) - absent_low),
        scale * (bits4(bytes4(q + 4u), shift, 3u) - absent_high),
    );
}
