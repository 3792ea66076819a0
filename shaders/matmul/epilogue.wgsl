// interface `epilogue`: from a product to y.
fn x_row(y_row: u32) -> u32 {
    if OUTPUTS { return output_row(y_row); }
    return y_row;
}
fn finish(y_row: u32, output: u32, product: f32, up: f32) {
    var value = product;
    if BIAS { value += vectors[BIAS_AT + output]; }
    value = activate(value);
    if GATED {
        var factor = up;
        if BIAS { factor += vectors[UP_BIAS_AT + output]; }
        value *= factor;
    }
    let at = y_row * STRIDE + FIRST + output;
    if ADD { value += y[at]; }
    if MULTIPLY { value *= y[at]; }
    y[at] = value;
}
