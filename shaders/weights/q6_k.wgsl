// interface `weights`: Q6_K, blocks of 256 values: 128 bytes of nibbles, 64 bytes of 2 high bits a value, 16 scales
// i8, d f16.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 210u;
    let v = i % 32u * 8u; // the first value's place in the block
    let within = v % 128u;
    let scale = half(block + 208u) * f32(i32(byte(block + 192u + v / 16u) << 24u) >> 24u);
    let q = block + v / 128u * 64u + within % 64u;
    let shift = within / 64u * 4u;
    let top = block + 128u + v / 128u * 32u + within % 32u;
    let top_shift = within / 32u * 2u;
    let low = bits4(bytes4(q), shift, 15u) + 16.0 * bits4(bytes4(top), top_shift, 3u);
    let high = bits4(bytes4(q + 4u), shift, 15u) + 16.0 * bits4(bytes4(top + 4u), top_shift, 3u);
    return Eight(scale * (low - 32.0), scale * (high - 32.0));
}
