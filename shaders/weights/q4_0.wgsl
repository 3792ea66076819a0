// interface `weights`: Q4_0, blocks of 32 values: d f16, 16 bytes of low and high nibbles.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 18u;
    let d = half(block);
    let q = block + 2u + i % 2u * 8u;
    let shift = i % 4u / 2u * 4u;
    return Eight(d * (bits4(bytes4(q), shift, 15u) - 8.0), d * (bits4(bytes4(q + 4u), shift, 15u) - 8.0));
}
