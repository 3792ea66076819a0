// Multiplies COUNT values of each row by the scale that the row's sequence has for an adapter, in place. Each
// thread multiplies one value.
override WORKGROUP: u32 = 64u;
override FIRST: u32;   // the first of the values in a row
override COUNT: u32;
override STRIDE: u32;  // values from one row to the next
override ADAPTER: u32; // the number of the adapter
#import step
@group(1) @binding(0) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = group_index(group, groups) * WORKGROUP + index;
    if i >= COUNT { return; }
    x[group.z * STRIDE + FIRST + i] *= adapter_scale(row_at(group.z).sequence, ADAPTER);
}
