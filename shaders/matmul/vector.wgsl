// y = epilogue(W norm(x)), with W = [G; U] when GATED, for few rows (decode). One workgroup takes LINES
// rows of the matrix (when GATED, rows of G and as many of U, which belong to them) and up to four rows of x,
// for which it reads the matrix once. Its threads take turns over the lanes of a row, and all that a lane
// loads of these rows is asked for before any of it is needed. The norm needs no pass of its own: its scale,
// and what its bias adds, are factored out of the products, so the same sweep over the columns also sums the
// squares.
override LINES: u32;          // rows of the matrix: 4, or 2 on GPUs with few registers
override MOST: u32;           // rows of x that there may be: 1 or 4
override WORKGROUP: u32;      // threads: 128, or fewer where a row has fewer lanes
override TURNS: u32 = (LANES + WORKGROUP - 1u) / WORKGROUP; // of the threads over the lanes
override WIDTH: u32;          // columns, without the padding
override RAGGED: bool;        // whether some lanes have groups of eight past the end of the row
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

// Group i of eight columns of the row of x that starts at x[at]; zeros past the end of the row.
fn columns8(at: u32, i: u32) -> Eight {
    if RAGGED && i >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    return Eight(x[at + 2u * i], x[at + 2u * i + 1u]);
}
// With NORM_CENTER minus the mean, except in the padding, which stays zero.
fn centered(v: Eight, i: u32, mean: f32) -> Eight {
    if !NORM_CENTER { return v; }
    let column = 8u * i + vec4(0u, 1u, 2u, 3u);
    return Eight(
        select(vec4(0.0), v.low - mean, column < vec4(WIDTH)),
        select(vec4(0.0), v.high - mean, column + 4u < vec4(WIDTH)),
    );
}
// This thread's summand of the mean of a row of x.
fn part_of_mean(at: u32, t: Thread) -> f32 {
    var total = vec4(0.0);
    for (var i = t.index; i < COLUMNS8; i += WORKGROUP) { total += x[at + 2u * i] + x[at + 2u * i + 1u]; }
    return dot(total, vec4(1.0)) / f32(WIDTH);
}
// A group of eight columns in each of the four rows of the matrix: raw numbers, and for each row what makes
// them weights.
struct Four { a: Eight, b: Eight, c: Eight, d: Eight, scale: vec4<f32>, offset: vec4<f32> }
fn four(a: Packed, b: Packed, c: Packed, d: Packed, j: u32) -> Four {
    let f = array(factors(a, j), factors(b, j), factors(c, j), factors(d, j));
    return Four(
        raw8(a, j), raw8(b, j), raw8(c, j), raw8(d, j),
        vec4(f[0].x, f[1].x, f[2].x, f[3].x), vec4(f[0].y, f[1].y, f[2].y, f[3].y),
    );
}
// Adds the products of eight columns with the four rows to `sum`. Scales, offsets and what raw numbers are
// too large by are the same for all eight columns, so they multiply sums. The calls of fma leave a compiler
// no choice: the program for one row and the one for several round alike.
fn dots(sum: vec4<f32>, w: Four, v: Eight) -> vec4<f32> {
    if !SCALED {
        return vec4(dot8(sum.x, w.a, v), dot8(sum.y, w.b, v), dot8(sum.z, w.c, v), dot8(sum.w, w.d, v));
    }
    let four = v.low + v.high;
    let even = four.x + four.y;
    let odd = four.z + four.w;
    var ones = 0.0;
    if EVEN_ONE > 0.0 { ones = -fma(EVEN_ONE + ZERO, even, (ODD_ONE + ZERO) * odd); }
    let quants = vec4(dot8(ones, w.a, v), dot8(ones, w.b, v), dot8(ones, w.c, v), dot8(ones, w.d, v));
    let products = fma(w.scale, quants, sum);
    if !OFFSETS { return products; }
    return fma(w.offset, vec4(even + odd), products);
}
fn dot8(sum: f32, a: Eight, b: Eight) -> f32 {
    let low = fma(a.low.w, b.low.w, fma(a.low.z, b.low.z, fma(a.low.y, b.low.y, fma(a.low.x, b.low.x, sum))));
    let high = fma(a.high.y, b.high.y, fma(a.high.x, b.high.x, low));
    return fma(a.high.w, b.high.w, fma(a.high.z, b.high.z, high));
}
// What has been summed so far: for each row of x its products, a component per row of the matrix; the
// products of the norm's bias, likewise; the squares, a component per row of x. No arrays: they would not
// stay in registers.
struct Sums {
    p0: vec4<f32>, p1: vec4<f32>, p2: vec4<f32>, p3: vec4<f32>,
    of_bias: vec4<f32>,
    squares: vec4<f32>,
}
// A row's products and sum of squares, with those of eight more of its columns.
struct RowSums { products: vec4<f32>, squares: f32 }
fn with_eight(so_far: RowSums, w: Four, norm: Eight, v: Eight) -> RowSums {
    if !NORM { return RowSums(dots(so_far.products, w, v), 0.0); }
    let squares = dot(v.low, v.low) + dot(v.high, v.high);
    let normed = Eight(v.low * norm.low, v.high * norm.high);
    return RowSums(dots(so_far.products, w, normed), so_far.squares + squares);
}
// Adds group i of eight columns to the sums of `count` rows of x, which start at the components of `at`; `v`
// are these columns of the first.
fn add(sums: Sums, w: Four, i: u32, v: Eight, count: u32, at: vec4<u32>, mean: vec4<f32>) -> Sums {
    var s = sums;
    var norm = Eight(vec4(1.0), vec4(1.0));
    if NORM {
        var n = 2u * i;
        if RAGGED { n = min(n, 2u * COLUMNS8 - 2u); }
        norm = Eight(vectors[NORM_WEIGHT_AT / 4u + n], vectors[NORM_WEIGHT_AT / 4u + n + 1u]);
        if NORM_BIAS && (!RAGGED || i < COLUMNS8) {
            let bias = Eight(vectors[NORM_BIAS_AT / 4u + n], vectors[NORM_BIAS_AT / 4u + n + 1u]);
            s.of_bias = dots(s.of_bias, w, bias);
        }
    }
    let m0 = with_eight(RowSums(s.p0, s.squares.x), w, norm, centered(v, i, mean.x));
    s.p0 = m0.products;
    s.squares.x = m0.squares;
    if count > 1u {
        let m1 = with_eight(RowSums(s.p1, s.squares.y), w, norm, centered(columns8(at.y, i), i, mean.y));
        s.p1 = m1.products;
        s.squares.y = m1.squares;
    }
    if count > 2u {
        let m2 = with_eight(RowSums(s.p2, s.squares.z), w, norm, centered(columns8(at.z, i), i, mean.z));
        s.p2 = m2.products;
        s.squares.z = m2.squares;
    }
    if count > 3u {
        let m3 = with_eight(RowSums(s.p3, s.squares.w), w, norm, centered(columns8(at.w, i), i, mean.w));
        s.p3 = m3.products;
        s.squares.w = m3.squares;
    }
    return s;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let outputs = LINES / select(1u, 2u, GATED);
    let first = outputs * group_index(group, groups);
    if first >= ROWS { return; }
    // The rows of the matrix: those of the outputs, then, when GATED, those of the up half that belong to
    // them. With two lines each is there twice, and a compiler computes it once.
    let line = vec4(0u, 1u, 2u, 3u) % LINES;
    let r = min(first + line % outputs, vec4(ROWS - 1u)) + line / outputs * ROWS;
    let first_row = MOST * group.z;
    var count = 1u;
    if MOST > 1u { count = min(MOST, y_rows() - first_row); }
    let last = first_row + count - 1u;
    let at = COLUMNS8 * 2u * vec4(
        x_row(first_row),
        x_row(min(first_row + 1u, last)),
        x_row(min(first_row + 2u, last)),
        x_row(min(first_row + 3u, last)),
    );
    var mean = vec4(0.0);
    var s = Sums(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (var turn = 0u; turn < TURNS; turn++) {
        let lane = turn * WORKGROUP + t.index;
        let loaded = min(lane, LANES - 1u);
        let i = vec4(eight_at(loaded, 0u), eight_at(loaded, 1u), eight_at(loaded, 2u), eight_at(loaded, 3u));
        // With one row of x all loads of a turn come first, and those that are nearer come before the others.
        var v = array<Eight, 4>();
        if LINES == 4u && MOST == 1u {
            v = array(columns8(at.x, i.x), columns8(at.x, i.y), columns8(at.x, i.z), columns8(at.x, i.w));
        }
        let a = load(r.x, loaded);
        let b = load(r.y, loaded);
        var c = a;
        var d = b;
        if LINES == 4u {
            c = load(r.z, loaded);
            d = load(r.w, loaded);
        }
        if NORM_CENTER && turn == 0u {
            // In here, because the first loads of the matrix need not wait for it.
            mean.x = part_of_mean(at.x, t);
            if count > 1u { mean.y = part_of_mean(at.y, t); }
            if count > 2u { mean.z = part_of_mean(at.z, t); }
            if count > 3u { mean.w = part_of_mean(at.w, t); }
            mean = sum4(t, mean);
        }
        // No break: what waits above must wait in all threads alike, which a compiler must see.
        if lane < LANES {
            if LINES == 4u && MOST == 1u {
                s = add(s, four(a, b, c, d, 0u), i.x, v[0], count, at, mean);
                s = add(s, four(a, b, c, d, 1u), i.y, v[1], count, at, mean);
                s = add(s, four(a, b, c, d, 2u), i.z, v[2], count, at, mean);
                s = add(s, four(a, b, c, d, 3u), i.w, v[3], count, at, mean);
            } else {
                // Not written out: for several rows of x the program would be long, and take long to compile.
                for (var j = 0u; j < 4u; j++) {
                    let i = eight_at(lane, j);
                    s = add(s, four(a, b, c, d, j), i, columns8(at.x, i), count, at, mean);
                }
            }
        }
    }
    leave_part(t, 0u, s.p0);
    if count > 1u { leave_part(t, 1u, s.p1); }
    if count > 2u { leave_part(t, 2u, s.p2); }
    if count > 3u { leave_part(t, 3u, s.p3); }
    if NORM { leave_part(t, MOST, s.squares); }
    if NORM_BIAS { leave_part(t, MOST + 1u, s.of_bias); }
    meet(t);
    let row = t.index / 4u;
    let j = t.index % 4u;
    if row >= count || j >= outputs || first + j >= ROWS { return; }
    var p = sum_of_parts(t, row);
    if NORM {
        p *= 1.0 / sqrt(sum_of_parts(t, MOST)[row] / f32(WIDTH) + EPSILON);
        if NORM_BIAS { p += sum_of_parts(t, MOST + 1u); }
    }
    finish(first_row + row, first, j, p, select(p.yyyy, p.zwzw, LINES == 4u));
}
