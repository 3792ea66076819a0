// y = features, in the rows whose token is FEATURE: they take an image feature in place of a token embedding.
// Each thread copies one value.
override WORKGROUP: u32 = 64u;
override STRIDE: u32; // values from one row to the next, in both buffers
#import step
@group(1) @binding(0) var<storage, read> features: array<f32>;
@group(1) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = group_index(group, groups) * WORKGROUP + index;
    if i >= STRIDE || row_at(group.z).token != FEATURE { return; }
    y[group.z * STRIDE + i] = features[group.z * STRIDE + i];
}
