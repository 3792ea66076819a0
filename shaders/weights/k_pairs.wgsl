// What Q4_K and Q5_K share: rows as pairs of words, for their blocks are whole numbers of these; a block starts with
// d, dmin f16 and 12 bytes of scales and offsets, six bits each, of its eight parts. The program says ROW_BYTES.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override ROW_BYTES: u32;
@group(1) @binding(0) var<storage, read> matrix: array<vec2<u32>>;
// The scale and offset of a part of the block that starts at this pair.
fn scale_and_offset(block: u32, part: u32) -> vec4<f32> {
    let first = matrix[block];
    let second = matrix[block + 1u];
    let shift = vec2(part % 4u * 8u);
    let both = vec2(first.y, second.x) >> shift;
    var six = both & vec2(63u);
    if part >= 4u { six = ((vec2(second.y, second.y >> 4u) >> shift) & vec2(15u)) | (((both >> vec2(6u)) & vec2(3u)) << vec2(4u)); }
    let by = vec2<f32>(six) * unpack2x16float(first.x);
    return vec4(by.x, -by.y, 0.0, 0.0);
}
fn bits4(word: u32) -> vec4<f32> { return vec4<f32>(unpack4xU8(word)); }
