// What every form of matmul is told and binds, beside the matrix itself at binding 0.
override COLUMNS8: u32;    // eights in a row of the matrix and of x
override MATRIX_ROWS: u32; // rows of this part of the matrix
override ROWS: u32;        // outputs that it makes: as many, or half when GATED
override FIRST: u32;       // the first of them in a row of y
override STRIDE: u32;      // values from one row of y to the next
override BIAS_AT: u32;     // where in the layer's vectors the first output's bias is
override BIAS: bool;
override GATED: bool;
override OUTPUTS: bool;    // x has a row for each row of the step, y one for each output
@group(1) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read> vectors: array<vec4<f32>>; // the layer's, each at a multiple of eight
@group(1) @binding(3) var<storage, read_write> y: array<f32>;

fn y_rows() -> u32 {
    if OUTPUTS { return output_count(); }
    return row_count();
}
fn x_row(y_row: u32) -> u32 {
    if OUTPUTS { return output_row(y_row); }
    return y_row;
}
// An output's bias; 0 without.
fn bias(output: u32) -> f32 {
    if !BIAS { return 0.0; }
    let at = BIAS_AT + output;
    return vectors[at / 4u][at % 4u];
}
