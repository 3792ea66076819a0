// Measures memory bandwidth: reads all of `from_`, 16 bytes per load, with neighbouring invocations reading
// neighbouring addresses. With COPY it also writes what it reads to `to`.
@group(0) @binding(0) var<storage, read> from_: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> to: array<vec4<u32>>;

override COPY: bool;
const GROUP: u32 = 256;
// 16-byte values per invocation.
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
    // The sum must have a use, or a compiler may drop the reads. The condition is never true: `from_` is all
    // zeros.
    if !COPY && all(sum == vec4(0xffffffffu)) {
        to[0] = sum;
    }
}
