// The same for many rows: one workgroup for a tile of 32 outputs by 32 rows, each of its 64 threads making 4 by 4
// of them, sixteen columns at a time through workgroup memory.
#import operands
#import step
#import weights
#import epilogue
const TILE = 32u;
const FOURS = 4u;  // fours of columns in a tile
const PITCH = 5u;  // fours from one line of a tile to the next: one to spare, so that neighbours read other banks
var<workgroup> w_tile: array<vec4<f32>, TILE * PITCH>; // [output][four]
var<workgroup> u_tile: array<vec4<f32>, TILE * PITCH>; // the up half's, when GATED
var<workgroup> x_tile: array<vec4<f32>, TILE * PITCH>; // [row][four]

// The products of four outputs, which share their columns, with one row.
fn dot4(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    return vec4(dot(a, x), dot(b, x), dot(c, x), dot(d, x));
}

fn finish4(y_row: u32, count: u32, output: u32, product: vec4<f32>, up: vec4<f32>) {
    if y_row >= count { return; }
    for (var j = 0u; j < 4u && output + j < ROWS; j++) { finish(y_row, output, j, product, up); }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = TILE * group_index(group, groups);
    if first >= ROWS { return; }
    let first_row = TILE * group.z;
    let count = y_rows();
    // What this thread brings into the tiles: eight columns of one output and of one row.
    let line = index / 2u;
    let half = index % 2u;
    let fetch_output = min(first + line, ROWS - 1u);
    let fetch_row = x_row(min(first_row + line, count - 1u));
    let to = line * PITCH + 2u * half;
    // What it makes: four outputs from `down` on, of four rows from `across` on. Neighbours share their rows, so
    // that those of rows that are not there have nothing to do together.
    let down = 4u * (index % 8u);
    let across = 4u * (index / 8u);
    let idle = first_row + across >= count;
    // A row each, over outputs. Not arrays: those would not stay in registers.
    var p0 = vec4(0.0);
    var p1 = vec4(0.0);
    var p2 = vec4(0.0);
    var p3 = vec4(0.0);
    var u0 = vec4(0.0);
    var u1 = vec4(0.0);
    var u2 = vec4(0.0);
    var u3 = vec4(0.0);
    for (var i = 0u; i < COLUMNS8; i += FOURS / 2u) {
        let eight = i + half;
        var w = Eight(vec4(0.0), vec4(0.0));
        var u = Eight(vec4(0.0), vec4(0.0));
        var low = vec4(0.0);
        var high = vec4(0.0);
        if eight < COLUMNS8 {
            w = weights8(fetch_output, eight, shared32(fetch_output, eight / 4u));
            if GATED { u = weights8(fetch_output + ROWS, eight, shared32(fetch_output + ROWS, eight / 4u)); }
            let at = (fetch_row * COLUMNS8 + eight) * 2u;
            low = x[at];
            high = x[at + 1u];
        }
        w_tile[to] = w.low;
        w_tile[to + 1u] = w.high;
        if GATED {
            u_tile[to] = u.low;
            u_tile[to + 1u] = u.high;
        }
        x_tile[to] = low;
        x_tile[to + 1u] = high;
        workgroupBarrier();
        for (var k = 0u; k < FOURS && !idle; k++) {
            let x_at = across * PITCH + k;
            let x0 = x_tile[x_at];
            let x1 = x_tile[x_at + PITCH];
            let x2 = x_tile[x_at + 2u * PITCH];
            let x3 = x_tile[x_at + 3u * PITCH];
            let w_at = down * PITCH + k;
            let a = w_tile[w_at];
            let b = w_tile[w_at + PITCH];
            let c = w_tile[w_at + 2u * PITCH];
            let d = w_tile[w_at + 3u * PITCH];
            p0 += dot4(a, b, c, d, x0);
            p1 += dot4(a, b, c, d, x1);
            p2 += dot4(a, b, c, d, x2);
            p3 += dot4(a, b, c, d, x3);
            if GATED {
                let e = u_tile[w_at];
                let f = u_tile[w_at + PITCH];
                let g = u_tile[w_at + 2u * PITCH];
                let h = u_tile[w_at + 3u * PITCH];
                u0 += dot4(e, f, g, h, x0);
                u1 += dot4(e, f, g, h, x1);
                u2 += dot4(e, f, g, h, x2);
                u3 += dot4(e, f, g, h, x3);
            }
        }
        workgroupBarrier();
    }
    finish4(first_row + across, count, first + down, p0, u0);
    finish4(first_row + across + 1u, count, first + down, p1, u1);
    finish4(first_row + across + 2u, count, first + down, p2, u2);
    finish4(first_row + across + 3u, count, first + down, p3, u3);
}
