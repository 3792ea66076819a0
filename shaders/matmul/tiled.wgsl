// The same for many rows: one workgroup for a tile of 32 outputs by 32 rows, each of its 64 threads making 4 by 4
// of them, sixteen columns at a time through workgroup memory.
#import operands
#import step
#import weights
#import activation
#import epilogue
const TILE = 32u;
const DEPTH = 16u;
var<workgroup> w_tile: array<f32, TILE * DEPTH>; // [column][output]
var<workgroup> u_tile: array<f32, TILE * DEPTH>; // the up half's, when GATED
var<workgroup> x_tile: array<f32, TILE * DEPTH>; // [column][row]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = TILE * group_index(group, groups);
    if first >= ROWS { return; }
    let first_row = TILE * group.z;
    var count = row_count();
    if OUTPUTS { count = output_count(); }
    // What this thread brings into the tiles: eight columns of one output and of one row.
    let lane = index / 2u;
    let half = index % 2u;
    let fetch_output = min(first + lane, ROWS - 1u);
    let fetch_row = x_row(min(first_row + lane, count - 1u));
    // What it makes: outputs 4 down.. and rows 4 across...
    let down = 4u * (index / 8u);
    let across = 4u * (index % 8u);
    var total: array<vec4<f32>, 4>; // [row], over outputs
    var up: array<vec4<f32>, 4>;
    for (var i = 0u; i < COLUMNS8; i += DEPTH / 8u) {
        let eight = i + half;
        let at = half * 8u * TILE + lane;
        if eight < COLUMNS8 {
            let w = weights8(fetch_output, eight);
            for (var j = 0u; j < 4u; j++) {
                w_tile[at + j * TILE] = w.low[j];
                w_tile[at + (j + 4u) * TILE] = w.high[j];
            }
            if GATED {
                let u = weights8(fetch_output + ROWS, eight);
                for (var j = 0u; j < 4u; j++) {
                    u_tile[at + j * TILE] = u.low[j];
                    u_tile[at + (j + 4u) * TILE] = u.high[j];
                }
            }
            let x_from = (fetch_row * COLUMNS8 + eight) * 2u;
            let low = x[x_from];
            let high = x[x_from + 1u];
            for (var j = 0u; j < 4u; j++) {
                x_tile[at + j * TILE] = low[j];
                x_tile[at + (j + 4u) * TILE] = high[j];
            }
        } else {
            for (var j = 0u; j < 8u; j++) {
                w_tile[at + j * TILE] = 0.0;
                u_tile[at + j * TILE] = 0.0;
                x_tile[at + j * TILE] = 0.0;
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let w_at = k * TILE + down;
            let x_at = k * TILE + across;
            let w = vec4(w_tile[w_at], w_tile[w_at + 1u], w_tile[w_at + 2u], w_tile[w_at + 3u]);
            let v = vec4(x_tile[x_at], x_tile[x_at + 1u], x_tile[x_at + 2u], x_tile[x_at + 3u]);
            total[0] += w * v.x;
            total[1] += w * v.y;
            total[2] += w * v.z;
            total[3] += w * v.w;
            if GATED {
                let u = vec4(u_tile[w_at], u_tile[w_at + 1u], u_tile[w_at + 2u], u_tile[w_at + 3u]);
                up[0] += u * v.x;
                up[1] += u * v.y;
                up[2] += u * v.z;
                up[3] += u * v.w;
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 4u; r++) {
        let y_row = first_row + across + r;
        for (var o = 0u; o < 4u; o++) {
            if y_row < count && first + down + o < ROWS {
                finish(y_row, first + down + o, total[r][o], up[r][o]);
            }
        }
    }
}
