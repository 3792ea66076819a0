// Reads all of `from`, sixteen bytes at a time, neighbours side by side; copies it where COPY says so.
@group(0) @binding(0) var<storage, read> from_: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> to: array<vec4<u32>>;

override COPY: bool;
const GROUP: u32 = 256;
// Values of sixteen bytes that an invocation takes.
const EACH: u32 = 16;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * GROUP * EACH + lane;
    var sum = vec4<u32>();
    for (var i = 0u; i < EACH; i++) {
        let at = first + i * GROUP;
        let value = from_[at];
        if COPY {
            to[at] = value;
        } else {
            sum ^= value;
        }
    }
    // Something must come of what was read; no sum of the zeros there is all ones.
    if !COPY && all(sum == vec4(0xffffffffu)) {
        to[0] = sum;
    }
}
