// Implements interface `epilogue`: y = activation(product + bias), multiplied by the up half when GATED;
// added to y with ADD, multiplied into y with MULTIPLY.
override UP: u32;       // when GATED, index distance from a gate's bias to the bias of the up value it gates
override ADD: bool;
override MULTIPLY: bool;
#import activation

// Finishes output `output` + j of a row of y; `product` holds the products of the outputs from `output` on,
// `up` those of the up half.
fn finish(y_row: u32, output: u32, j: u32, product: vec4<f32>, up: vec4<f32>) {
    var value = activate(product[j] + bias(output + j));
    if GATED { value *= up[j] + bias(UP + output + j); }
    let at = y_row * STRIDE + FIRST + output + j;
    if ADD { value += y[at]; }
    if MULTIPLY { value *= y[at]; }
    y[at] = value;
}
