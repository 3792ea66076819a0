// y = table[token] or table[position], or y += with ADD. Each thread handles eight values of a row.
override WORKGROUP: u32 = 64u;
override COLUMNS8: u32;  // groups of eight values in a row of the table
override STRIDE: u32;    // values from one row of y to the next
override WIDTH: u32;     // values in a row of y, without padding
override FIRST: u32;     // first row of the table that this part holds
override ROWS: u32;      // rows of the table in this part
override BY_POSITION: bool;
override ADD: bool;
#import step
#import weights
@group(1) @binding(1) var<storage, read> ids: array<u32>;
@group(1) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = row_at(group.z);
    var wanted = row.token;
    if wanted == SAMPLED { wanted = ids[row.sequence]; }
    if BY_POSITION { wanted = row.position; }
    let i = group_index(group, groups) * WORKGROUP + index;
    if wanted < FIRST || wanted - FIRST >= ROWS || i >= COLUMNS8 { return; }
    let w = weights8(wanted - FIRST, i);
    for (var j = 0u; j < 8u; j++) {
        let column = 8u * i + j;
        if column < WIDTH {
            let at = group.z * STRIDE + column;
            var value = select(w.high[j & 3u], w.low[j & 3u], j < 4u);
            if ADD { value += y[at]; }
            y[at] = value;
        }
    }
}
