// The same for many rows: one workgroup for a tile of 64 lines of the matrix by 64 rows of x, each of its 128 threads making 4
// by 8 products, sixteen columns at a time through workgroup memory. Columns lie there one after the other, so that a thread
// reads 12 numbers for 32 multiply-adds and neighbours read side by side. The next columns are fetched while these are
// multiplied.
#import operands
#import step
#import weights
#import epilogue
const TILE = 64u;
const TURN = 2u;   // eights of columns in a tile
const PITCH = 68u; // from one column of a tile to the next: four to spare, so that neighbours write other banks
// Single numbers, not vectors: a thread that writes one component of a vector may write all of it, and others write the rest.
var<workgroup> w_tile: array<f32, 8u * TURN * PITCH>; // [column][line]
var<workgroup> x_tile: array<f32, 8u * TURN * PITCH>; // [column][row]

fn w4(at: u32) -> vec4<f32> { return vec4(w_tile[at], w_tile[at + 1u], w_tile[at + 2u], w_tile[at + 3u]); }
fn x4(at: u32) -> vec4<f32> { return vec4(x_tile[at], x_tile[at + 1u], x_tile[at + 2u], x_tile[at + 3u]); }

// Outputs of a thread's four lines: when GATED, two lines of the gate are followed by the two of up that they gate.
fn outputs() -> u32 { return select(4u, 2u, GATED); }

// The row of the matrix that a line of the tile is.
fn matrix_row(first: u32, line: u32) -> u32 {
    if !GATED { return min(first + line, ROWS - 1u); }
    return min(first + line / 4u * 2u + line % 2u, ROWS - 1u) + line / 2u % 2u * ROWS;
}

// Eight columns of a row of the matrix, and of x; zeros beyond the last.
fn w_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    return weights8(row, eight, shared32(row, eight / 4u));
}
fn x_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    let at = (row * COLUMNS8 + eight) * 2u;
    return Eight(x[at], x[at + 1u]);
}

fn finish4(y_row: u32, count: u32, output: u32, product: vec4<f32>) {
    if y_row >= count { return; }
    for (var j = 0u; j < outputs() && output + j < ROWS; j++) { finish(y_row, output, j, product, product.zwzw); }
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
    // What this thread brings into the tiles: eight columns of one line and of one row.
    let line = index / 2u;
    let half = index % 2u;
    let w_row = matrix_row(first, line);
    let x_row_ = x_row(min(first_row + line, count - 1u));
    let to = 8u * half * PITCH + line;
    // What it makes: a four of lines, of eight rows from `across` on. Neighbours share their rows, so that those of rows that
    // are not there have nothing to do together.
    let down = index % 16u;
    let across = 8u * (index / 16u);
    let idle = first_row + across >= count;
    // A row each, over the four lines. Not an array: that would not stay in registers.
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
