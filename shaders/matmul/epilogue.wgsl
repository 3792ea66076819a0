// interface `epilogue`: from products to y, activated, gated, added or multiplied.
override UP: u32;       // the first output of the up half, when GATED
override ADD: bool;
override MULTIPLY: bool;
#import activation

// The j-th of the four outputs from `output` on.
fn finish(y_row: u32, output: u32, j: u32, product: vec4<f32>, up: vec4<f32>) {
    var value = activate(product[j] + bias(output + j));
    if GATED { value *= up[j] + bias(UP + output + j); }
    let at = y_row * STRIDE + FIRST + output + j;
    if ADD { value += y[at]; }
    if MULTIPLY { value *= y[at]; }
    y[at] = value;
}
