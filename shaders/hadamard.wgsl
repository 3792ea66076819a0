// Turns each SIZE values of a row by a Hadamard matrix over sqrt(SIZE), in place. One workgroup per row and
// SIZE values; each thread computes one of them.
override SIZE: u32;    // a power of two
override WORKGROUP: u32 = SIZE;
override COUNT: u32;   // of them in a row
override STRIDE: u32;  // values from one row to the next
override SCALE: f32;   // 1 / sqrt(SIZE)
#import step
@group(1) @binding(0) var<storage, read_write> x: array<f32>;
var<workgroup> values: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let number = group_index(group, groups);
    if number >= COUNT { return; }
    let at = group.z * STRIDE + number * SIZE + index;
    values[index] = x[at];
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < SIZE; i++) {
        sum += select(values[i], -values[i], (countOneBits(index & i) & 1u) == 1u);
    }
    x[at] = sum * SCALE;
}
