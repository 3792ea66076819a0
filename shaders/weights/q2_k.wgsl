// interface `weights`: Q2_K, blocks of 256 values: 16 bytes of scale and offset, 4 bits each, 64 bytes of 2 bits a
// value, d, dmin f16.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 84u;
    let v = i % 32u * 8u; // the first value's place in the block
    let both = byte(block + v / 16u);
    let scale = half(block + 80u) * f32(both & 15u);
    let offset = half(block + 82u) * f32(both >> 4u);
    let q = block + 16u + v / 128u * 32u + v % 32u;
    let shift = v % 128u / 32u * 2u;
    return Eight(scale * bits4(bytes4(q), shift, 3u) - offset, scale * bits4(bytes4(q + 4u), shift, 3u) - offset);
}
