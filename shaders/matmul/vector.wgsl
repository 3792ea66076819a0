// y = epilogue(W norm(x)), with W = [G; U] when GATED, for few rows (decode). One workgroup takes four rows
// of the matrix (when GATED, two of G and the two of U that belong to them) and up to four rows of x, for
// which it reads the matrix once. Its threads take turns over the columns, RUN groups of eight at a time. The
// norm needs no pass of its own: its scale, and what its bias adds, are factored out of the products, so the
// same sweep over the columns also sums the squares.
override WORKGROUP: u32 = 64u;
override RUN: u32;            // groups of eight columns that a thread takes at a time, at most four
override WIDTH: u32;          // columns, without the padding
override NORM: bool;
override NORM_CENTER: bool;   // layer norm: subtract the mean, which takes a sweep of its own
override NORM_BIAS: bool;
override NORM_WEIGHT_AT: u32; // where the norm's weights start in the layer's vectors
override NORM_BIAS_AT: u32;   // where its bias starts
override EPSILON: f32;
#import operands
#import step
#import reduce
#import weights
#import epilogue

// The i-th group of eight columns of the row of x that starts at x[at]; with NORM_CENTER minus the mean,
// except in the padding, which stays zero.
fn centered(at: u32, i: u32, mean: f32) -> Eight {
    var v = Eight(x[at + 2u * i], x[at + 2u * i + 1u]);
    if NORM_CENTER {
        let column = 8u * i + vec4(0u, 1u, 2u, 3u);
        v.low = select(vec4(0.0), v.low - mean, column < vec4(WIDTH));
        v.high = select(vec4(0.0), v.high - mean, column + 4u < vec4(WIDTH));
    }
    return v;
}
// This thread's summand of the mean of a row of x.
fn part_of_mean(at: u32, t: Thread) -> f32 {
    var total = vec4(0.0);
    for (var i = t.index; i < COLUMNS8; i += WORKGROUP) { total += x[at + 2u * i] + x[at + 2u * i + 1u]; }
    return dot(total, vec4(1.0)) / f32(WIDTH);
}
// A group of eight columns in each of the four rows of the matrix.
struct Four { a: Eight, b: Eight, c: Eight, d: Eight }
fn dots(w: Four, v: Eight) -> vec4<f32> {
    return vec4(dot(w.a.low, v.low), dot(w.b.low, v.low), dot(w.c.low, v.low), dot(w.d.low, v.low))
        + vec4(dot(w.a.high, v.high), dot(w.b.high, v.high), dot(w.c.high, v.high), dot(w.d.high, v.high));
}
// What eight columns of a row of x contribute: to its products with the four rows of the matrix, and to its
// sum of squares.
struct Made { products: vec4<f32>, squares: f32 }
fn made(w: Four, norm: Eight, at: u32, i: u32, mean: f32) -> Made {
    var v = centered(at, i, mean);
    var squares = 0.0;
    if NORM {
        squares = dot(v.low, v.low) + dot(v.high, v.high);
        v.low *= norm.low;
        v.high *= norm.high;
    }
    return Made(dots(w, v), squares);
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let outputs = select(4u, 2u, GATED);
    let first = outputs * group_index(group, groups);
    if first >= ROWS { return; }
    let rows = min(first + vec4(0u, 1u, 2u, 3u), vec4(MATRIX_ROWS - 1u));
    let r = select(rows, vec4(rows.xy, rows.xy + ROWS), GATED);
    let first_row = 4u * group.z;
    let count = min(4u, y_rows() - first_row);
    let last = first_row + count - 1u;
    let at = COLUMNS8 * 2u * vec4(
        x_row(first_row),
        x_row(min(first_row + 1u, last)),
        x_row(min(first_row + 2u, last)),
        x_row(min(first_row + 3u, last)),
    );
    var mean = vec4(0.0);
    if NORM_CENTER {
        mean.x = part_of_mean(at.x, t);
        if count > 1u { mean.y = part_of_mean(at.y, t); }
        if count > 2u { mean.z = part_of_mean(at.z, t); }
        if count > 3u { mean.w = part_of_mean(at.w, t); }
        mean = sum4(t, mean);
    }
    // One accumulator per row of x, with a component per row of the matrix. Not an array: that would not stay
    // in registers.
    var p0 = vec4(0.0);
    var p1 = vec4(0.0);
    var p2 = vec4(0.0);
    var p3 = vec4(0.0);
    var of_bias = vec4(0.0); // products of the norm's bias, a component per row of the matrix
    var squares = vec4(0.0); // a component per row of x
    for (var run = t.index * RUN; run < COLUMNS8; run += WORKGROUP * RUN) {
        let a = shared32(r.x, run / 4u);
        let b = shared32(r.y, run / 4u);
        let c = shared32(r.z, run / 4u);
        let d = shared32(r.w, run / 4u);
        for (var i = run; i < min(run + RUN, COLUMNS8); i++) {
            let w = Four(
                weights8(r.x, i, a), weights8(r.y, i, b), weights8(r.z, i, c), weights8(r.w, i, d),
            );
            var norm = Eight(vec4(1.0), vec4(1.0));
            if NORM {
                let weight = NORM_WEIGHT_AT / 4u + 2u * i;
                norm = Eight(vectors[weight], vectors[weight + 1u]);
                let bias = NORM_BIAS_AT / 4u + 2u * i;
                if NORM_BIAS { of_bias += dots(w, Eight(vectors[bias], vectors[bias + 1u])); }
            }
            let m0 = made(w, norm, at.x, i, mean.x);
            p0 += m0.products;
            squares.x += m0.squares;
            if count > 1u {
                let m1 = made(w, norm, at.y, i, mean.y);
                p1 += m1.products;
                squares.y += m1.squares;
            }
            if count > 2u {
                let m2 = made(w, norm, at.z, i, mean.z);
                p2 += m2.products;
                squares.z += m2.squares;
            }
            if count > 3u {
                let m3 = made(w, norm, at.w, i, mean.w);
                p3 += m3.products;
                squares.w += m3.squares;
            }
        }
    }
    if NORM {
        let scale = 1.0 / sqrt(sum4(t, squares) / f32(WIDTH) + EPSILON);
        p0 = p0 * scale.x + of_bias;
        p1 = p1 * scale.y + of_bias;
        p2 = p2 * scale.z + of_bias;
        p3 = p3 * scale.w + of_bias;
    }
    p0 = sum4(t, p0);
    if count > 1u { p1 = sum4(t, p1); }
    if count > 2u { p2 = sum4(t, p2); }
    if count > 3u { p3 = sum4(t, p3); }
    let row = t.index / 4u;
    let j = t.index % 4u;
    if row >= count || j >= outputs || first + j >= ROWS { return; }
    let p = select(select(p0, p1, row == 1u), select(p2, p3, row == 3u), row >= 2u);
    finish(first_row + row, first, j, p, p.zwzw);
}
