// What every form of matmul is told and binds, beside the matrix itself at binding 0.
override COLUMNS8: u32;    // eights in a row of the matrix and of x
override MATRIX_ROWS: u32; // rows of this part of the matrix
override ROWS: u32;        // outputs that it makes: as many, or half when GATED
override FIRST: u32;       // the first of them in a row of y
override STRIDE: u32;      // values from one row of y to the next
override BIAS_AT: u32;     // where in the layer's vectors the first output's bias is
override UP_BIAS_AT: u32;  // and that of its up half
override BIAS: bool;
override GATED: bool;
override ADD: bool;
override MULTIPLY: bool;
override OUTPUTS: bool;    // x has a row for each row of the step, y one for each output
@group(1) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read> vectors: array<f32>;
@group(1) @binding(3) var<storage, read_write> y: array<f32>;
