// Rotary position embedding: rotates each pair of values of the query and key heads, in place, by the angle
// for the row's position and the pair. Each thread rotates one pair. The two values of a pair are adjacent;
// the table holds (cos, sin): [position][pair].
override WORKGROUP: u32 = 64u;
override HEADS: u32;   // query and key heads together
override PAIRS: u32;   // pairs in a head
override STRIDE: u32;  // values from one row of qkv to the next
#import step
#import pair
@group(1) @binding(0) var<storage, read> table: array<vec2<f32>>;
@group(1) @binding(1) var<storage, read_write> qkv: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = group_index(group, groups) * WORKGROUP + index;
    if i >= HEADS * PAIRS { return; }
    let turn = table[row_at(group.z).position * PAIRS + i % PAIRS];
    let at = group.z * STRIDE + 2u * i;
    let rotated = rotate(vec2(qkv[at], qkv[at + 1u]), turn);
    qkv[at] = rotated.x;
    qkv[at + 1u] = rotated.y;
}
