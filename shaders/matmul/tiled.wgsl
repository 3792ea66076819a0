// y = epilogue(W x), with W = [G; U] when GATED, for many rows (prefill). One workgroup computes a tile: 64
// rows of the matrix ("lines" here) by 64 rows of x. Each of its 128 threads computes 4 lines by 8 rows. Both
// operands pass through workgroup memory 16 columns at a time, stored column by column, so that per column a
// thread reads 12 numbers for 32 multiply-adds and neighbours read adjacent addresses. A thread loads its
// part of the next 16 columns into registers while the current ones are multiplied.
#import operands
#import step
#import weights
#import epilogue
const TILE = 64u;
const TURN = 2u;   // groups of eight columns in workgroup memory at a time
const PITCH = 68u; // values from one column to the next: 64 + 4, so that neighbours write different banks
// Scalars, not vectors: a write to one component of a vector may be compiled to a write of the whole vector,
// which would race with the threads that write its other components.
var<workgroup> w_tile: array<f32, 8u * TURN * PITCH>; // [column][line]
var<workgroup> x_tile: array<f32, 8u * TURN * PITCH>; // [column][row]

fn w4(at: u32) -> vec4<f32> { return vec4(w_tile[at], w_tile[at + 1u], w_tile[at + 2u], w_tile[at + 3u]); }
fn x4(at: u32) -> vec4<f32> { return vec4(x_tile[at], x_tile[at + 1u], x_tile[at + 2u], x_tile[at + 3u]); }

// How many outputs a thread's four lines give: 4, or 2 when GATED, where two lines of the gate are followed
// by the two lines of the up half that belong to them.
fn outputs() -> u32 { return select(4u, 2u, GATED); }

// The row of the matrix for a line of the tile whose first output is `first`; clamped to the last output's
// row.
fn matrix_row(first: u32, line: u32) -> u32 {
    if !GATED { return min(first + line, ROWS - 1u); }
    return min(first + line / 4u * 2u + line % 2u, ROWS - 1u) + line / 2u % 2u * ROWS;
}

// The `eight`-th group of eight columns in a row of the matrix (w_at) or of x (x_at); zeros past the last
// column.
fn w_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    return weights8(row, eight);
}
fn x_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    let at = (row * COLUMNS8 + eight) * 2u;
    return Eight(x[at], x[at + 1u]);
}

fn finish4(y_row: u32, count: u32, output: u32, product: vec4<f32>) {
    if y_row >= count { return; }
    for (var j = 0u; j < outputs() && output + j < ROWS; j++) {
        finish(y_row, output, j, product, product.zwzw);
    }
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = TILE / 4u * outputs() * group_index(group, groups);
    if first >= ROWS { return; }
    let first_row = TILE * group.z;
    let count = y_rows();
    // What this thread loads into the tiles: eight columns of one line and of one row.
    let line = index / 2u;
    let half = index % 2u;
    let w_row = matrix_row(first, line);
    let x_row_ = x_row(min(first_row + line, count - 1u));
    let to = 8u * half * PITCH + line;
    // What it computes: four lines from 4 * `down` on, by eight rows from `across` on. Sixteen neighbours
    // share their rows, so threads whose rows are all past the end are idle together.
    let down = index % 16u;
    let across = 8u * (index / 16u);
    let idle = first_row + across >= count;
    // One accumulator per row, with a component per line. Not an array: that would not stay in registers.
    var p0 = vec4(0.0);
    var p1 = vec4(0.0);
    var p2 = vec4(0.0);
    var p3 = vec4(0.0);
    var p4 = vec4(0.0);
    var p5 = vec4(0.0);
    var p6 = vec4(0.0);
    var p7 = vec4(0.0);
    var w = w_at(w_row, half);
    var v = x_at(x_row_, half);
    for (var i = 0u; i < COLUMNS8; i += TURN) {
        w_tile[to] = w.low.x;
        w_tile[to + PITCH] = w.low.y;
        w_tile[to + 2u * PITCH] = w.low.z;
        w_tile[to + 3u * PITCH] = w.low.w;
        w_tile[to + 4u * PITCH] = w.high.x;
        w_tile[to + 5u * PITCH] = w.high.y;
        w_tile[to + 6u * PITCH] = w.high.z;
        w_tile[to + 7u * PITCH] = w.high.w;
        x_tile[to] = v.low.x;
        x_tile[to + PITCH] = v.low.y;
        x_tile[to + 2u * PITCH] = v.low.z;
        x_tile[to + 3u * PITCH] = v.low.w;
        x_tile[to + 4u * PITCH] = v.high.x;
        x_tile[to + 5u * PITCH] = v.high.y;
        x_tile[to + 6u * PITCH] = v.high.z;
        x_tile[to + 7u * PITCH] = v.high.w;
        workgroupBarrier();
        w = w_at(w_row, i + TURN + half);
        v = x_at(x_row_, i + TURN + half);
        for (var k = 0u; k < 8u * TURN && !idle; k++) {
            let by = w4(k * PITCH + 4u * down);
            let a = x4(k * PITCH + across);
            let b = x4(k * PITCH + across + 4u);
            p0 += by * a.x;
            p1 += by * a.y;
            p2 += by * a.z;
            p3 += by * a.w;
            p4 += by * b.x;
            p5 += by * b.y;
            p6 += by * b.z;
            p7 += by * b.w;
        }
        workgroupBarrier();
    }
    let output = first + outputs() * down;
    finish4(first_row + across, count, output, p0);
    finish4(first_row + across + 1u, count, output, p1);
    finish4(first_row + across + 2u, count, output, p2);
    finish4(first_row + across + 3u, count, output, p3);
    finish4(first_row + across + 4u, count, output, p4);
    finish4(first_row + across + 5u, count, output, p5);
    finish4(first_row + across + 6u, count, output, p6);
    finish4(first_row + across + 7u, count, output, p7);
}
