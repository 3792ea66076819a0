// Constants and bindings that both matmul programs use. The matrix itself, at binding 0, comes with interface
// `weights`.
override COLUMNS8: u32;    // groups of eight values in a row of the matrix and of x
override ROWS: u32;        // outputs of this part: its rows of the matrix, or half of them when GATED
override FIRST: u32;       // index of the first of these outputs in a row of y
override STRIDE: u32;      // values from one row of y to the next
override BIAS_AT: u32;     // where the first output's bias is in the layer's vectors
override BIAS: bool;
override GATED: bool;
override OUTPUTS: bool;    // x has a row for each row of the step, y one for each output
@group(1) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read> vectors: array<vec4<f32>>; // each at a multiple of eight
@group(1) @binding(3) var<storage, read_write> y: array<f32>;

fn y_rows() -> u32 {
    if OUTPUTS { return output_count(); }
    return row_count();
}
fn x_row(y_row: u32) -> u32 {
    if OUTPUTS { return output_row(y_row); }
    return y_row;
}
// The bias of an output; 0 without BIAS.
fn bias(output: u32) -> f32 {
    if !BIAS { return 0.0; }
    let at = BIAS_AT + output;
    return vectors[at / 4u][at % 4u];
}
