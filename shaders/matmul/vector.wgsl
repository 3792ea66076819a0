// y = activate(W x + bias), or y += that, or y *= that; when GATED, activate(G x + bias) * (U x + bias) with
// W = [G; U]. Matrix-vector: one workgroup for four outputs of one row, the columns dealt out over its threads.
override WORKGROUP: u32 = 64u;
#import operands
#import step
#import reduce
#import weights
#import activation
#import epilogue

// The products of x with four rows of the matrix from `first` on.
fn product4(t: Thread, first: u32, x_at: u32) -> vec4<f32> {
    let last = MATRIX_ROWS - 1u;
    let rows = min(vec4(first, first + 1u, first + 2u, first + 3u), vec4(last));
    var total = vec4(0.0);
    for (var i = t.index; i < COLUMNS8; i += WORKGROUP) {
        let low = x[x_at + 2u * i];
        let high = x[x_at + 2u * i + 1u];
        let a = weights8(rows.x, i);
        let b = weights8(rows.y, i);
        let c = weights8(rows.z, i);
        let d = weights8(rows.w, i);
        total += vec4(dot(a.low, low), dot(b.low, low), dot(c.low, low), dot(d.low, low))
            + vec4(dot(a.high, high), dot(b.high, high), dot(c.high, high), dot(d.high, high));
    }
    return sum4(t, total);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    t: Thread,
) {
    let first = 4u * group_index(group, groups);
    if first >= ROWS { return; }
    let x_at = x_row(group.z) * COLUMNS8 * 2u;
    let product = product4(t, first, x_at);
    var up = vec4(0.0);
    if GATED { up = product4(t, first + ROWS, x_at); }
    if t.index < 4u && first + t.index < ROWS {
        finish(group.z, first + t.index, product[t.index], up[t.index]);
    }
}
