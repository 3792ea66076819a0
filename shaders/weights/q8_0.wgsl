// interface `weights`: Q8_0, blocks of 32 values: d f16, 32 i8.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 34u;
    let d = half(block);
    let q = block + 2u + i % 4u * 8u;
    return Eight(vec4<f32>(unpack4xI8(bytes4(q))) * d, vec4<f32>(unpack4xI8(bytes4(q + 4u))) * d);
}
