// Writes each row's keys and values into the KV cache, at the slot of the row's position. Each thread writes
// UNIT numbers of a key and of a value.
override WORKGROUP: u32 = 64u;
override KEYS_AT: u32;    // where this part's keys start in a row of qkv
override VALUES_AT: u32;  // where its values start
override STRIDE: u32;     // values from one row of qkv to the next
#import step
#import kv_write
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
@group(1) @binding(1) var<storage, read_write> cache: array<KvWord>;

fn numbers_at(from_: u32) -> array<f32, UNIT> {
    var numbers: array<f32, UNIT>;
    for (var i = 0u; i < UNIT; i++) { numbers[i] = qkv[from_ + i]; }
    return numbers;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = (group_index(group, groups) * WORKGROUP + index) * UNIT;
    if i >= KV_WIDTH { return; }
    let row = row_at(group.z);
    let slot = slot_of(row.sequence, row.position);
    write_kv(key_of(slot, i), numbers_at(group.z * STRIDE + KEYS_AT + i));
    write_kv(value_of(slot, i), numbers_at(group.z * STRIDE + VALUES_AT + i));
}
