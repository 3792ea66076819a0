// y = activation(x), or activation(gate) · up where a row of x holds WIDTH gates and then WIDTH values of up.
// Each thread computes one value.
override WORKGROUP: u32 = 64u;
override WIDTH: u32;    // values in a row of y
override STRIDE_X: u32; // values from one row of x to the next
override STRIDE_Y: u32; // values from one row of y to the next
override GATED: bool;
#import step
#import activation
@group(1) @binding(0) var<storage, read> x: array<f32>;
@group(1) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = group_index(group, groups) * WORKGROUP + index;
    if i >= WIDTH { return; }
    let at = group.z * STRIDE_X + i;
    var value = activate(x[at]);
    if GATED { value *= x[at + WIDTH]; }
    y[group.z * STRIDE_Y + i] = value;
}
