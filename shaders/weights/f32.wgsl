// interface `weights`: the matrix, eight consecutive values of a row at a time, and four numbers that 32 of them share.
// The program says COLUMNS8: eights in a row.
struct Eight { low: vec4<f32>, high: vec4<f32> }
@group(1) @binding(0) var<storage, read> matrix: array<vec4<f32>>;
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(0.0); }
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let at = 2u * (row * COLUMNS8 + i);
    return Eight(matrix[at], matrix[at + 1u]);
}
