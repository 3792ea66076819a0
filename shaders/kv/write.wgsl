// Writes each row's keys and values into the KV cache, at the slot of the row's position. Each thread copies
// one key and one value component.
override WORKGROUP: u32 = 64u;
override KEYS_AT: u32;    // where this part's keys start in a row of qkv
override VALUES_AT: u32;  // where its values start
override STRIDE: u32;     // values from one row of qkv to the next
#import step
#import kv_write
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
@group(1) @binding(1) var<storage, read_write> cache: array<KvWord>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = group_index(group, groups) * WORKGROUP + index;
    if i >= KV_WIDTH { return; }
    let row = row_at(group.z);
    let slot = slot_of(row.sequence, row.position);
    let key = group.z * STRIDE + KEYS_AT + i;
    let value = group.z * STRIDE + VALUES_AT + i;
    let to_next = u32(i + 1u < KV_WIDTH);
    write_key(slot, i, qkv[key], qkv[key + to_next]);
    write_value(slot, i, qkv[value], qkv[value + to_next]);
}
