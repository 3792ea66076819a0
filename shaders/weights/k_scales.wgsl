// The scale and offset, six bits each, of the eight parts of a Q4_K or Q5_K block; `scales` is the address of the
// twelve bytes that hold them.
fn scale_and_offset(scales: u32, s: u32) -> vec2<f32> {
    if s < 4u { return vec2(f32(byte(scales + s) & 63u), f32(byte(scales + s + 4u) & 63u)); }
    let both = byte(scales + s + 4u);
    let scale = (both & 15u) | ((byte(scales + s - 4u) >> 6u) << 4u);
    let offset = (both >> 4u) | ((byte(scales + s) >> 6u) << 4u);
    return vec2(f32(scale), f32(offset));
}
