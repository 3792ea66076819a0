// y = epilogue(W norm(x)), with W = [G; U] when GATED. Matrix-vector: one workgroup for four outputs of one row, the
// columns dealt out over its threads. The norm costs no pass of its own: its scale, and what its bias adds, are
// factored out of the products, so that one sweep over the columns sums the squares too.
override WORKGROUP: u32 = 64u;
override WIDTH: u32;          // columns, without the padding
override NORM: bool;
override NORM_CENTER: bool;   // of the differences from the mean, which takes a sweep of its own
override NORM_BIAS: bool;
override NORM_WEIGHT_AT: u32; // where in the layer's vectors
override NORM_BIAS_AT: u32;
override EPSILON: f32;
#import operands
#import step
#import reduce
#import weights
#import epilogue

// Eight columns of x, those beyond the last zero, less the mean.
fn centered(at: u32, i: u32, mean: f32) -> Eight {
    var v = Eight(x[at + 2u * i], x[at + 2u * i + 1u]);
    if NORM_CENTER {
        let column = 8u * i + vec4(0u, 1u, 2u, 3u);
        v.low = select(vec4(0.0), v.low - mean, column < vec4(WIDTH));
        v.high = select(vec4(0.0), v.high - mean, column + 4u < vec4(WIDTH));
    }
    return v;
}
fn mean_of(t: Thread, at: u32) -> f32 {
    var total = vec4(0.0);
    for (var i = t.index; i < COLUMNS8; i += WORKGROUP) { total += x[at + 2u * i] + x[at + 2u * i + 1u]; }
    return dot(sum4(t, total), vec4(1.0)) / f32(WIDTH);
}
// Eight columns of four rows of the matrix from `first` on.
struct Four { a: Eight, b: Eight, c: Eight, d: Eight }
fn four(first: u32, i: u32) -> Four {
    let rows = min(first + vec4(0u, 1u, 2u, 3u), vec4(MATRIX_ROWS - 1u));
    return Four(weights8(rows.x, i), weights8(rows.y, i), weights8(rows.z, i), weights8(rows.w, i));
}
fn dots(w: Four, v: Eight) -> vec4<f32> {
    return vec4(dot(w.a.low, v.low), dot(w.b.low, v.low), dot(w.c.low, v.low), dot(w.d.low, v.low))
        + vec4(dot(w.a.high, v.high), dot(w.b.high, v.high), dot(w.c.high, v.high), dot(w.d.high, v.high));
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    t: Thread,
) {
    let first = 4u * group_index(group, groups);
    if first >= ROWS { return; }
    let at = x_row(group.z) * COLUMNS8 * 2u;
    var mean = 0.0;
    if NORM_CENTER { mean = mean_of(t, at); }
    var product = vec4(0.0);
    var up = vec4(0.0);
    var product_of_bias = vec4(0.0);
    var up_of_bias = vec4(0.0);
    var squares = vec4(0.0);
    for (var i = t.index; i < COLUMNS8; i += WORKGROUP) {
        var v = centered(at, i, mean);
        if NORM {
            squares += v.low * v.low + v.high * v.high;
            v.low *= vectors[NORM_WEIGHT_AT / 4u + 2u * i];
            v.high *= vectors[NORM_WEIGHT_AT / 4u + 2u * i + 1u];
        }
        let w = four(first, i);
        product += dots(w, v);
        let bias = NORM_BIAS_AT / 4u + 2u * i;
        if NORM_BIAS { product_of_bias += dots(w, Eight(vectors[bias], vectors[bias + 1u])); }
        if GATED {
            let u = four(first + ROWS, i);
            up += dots(u, v);
            if NORM_BIAS { up_of_bias += dots(u, Eight(vectors[bias], vectors[bias + 1u])); }
        }
    }
    if NORM {
        let variance = dot(sum4(t, squares), vec4(1.0)) / f32(WIDTH);
        let scale = 1.0 / sqrt(variance + EPSILON);
        product = product * scale + product_of_bias;
        up = up * scale + up_of_bias;
    }
    product = sum4(t, product);
    if GATED { up = sum4(t, up); }
    if t.index < 4u && first + t.index < ROWS { finish(group.z, first, t.index, product, up); }
}
