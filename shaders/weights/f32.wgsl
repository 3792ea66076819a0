// Implements interface `weights` for f32. The interface reads a matrix: weights8(row, i, s) gives the i-th
// eight consecutive values of a row, where s = shared32(row, i / 4) holds up to four numbers, such as a
// block's scale, that 32 consecutive values share. The importing program defines COLUMNS8, the groups of
// eight values in a row.
struct Eight { low: vec4<f32>, high: vec4<f32> }
@group(1) @binding(0) var<storage, read> matrix: array<vec4<f32>>;
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(0.0); }
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let at = 2u * (row * COLUMNS8 + i);
    return Eight(matrix[at], matrix[at + 1u]);
}
