// Implements interface `values` for f16: two values per word. Needs no device extension.
alias Group = vec4<u32>;
@group(1) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
fn group_of(at: u32) -> Group { return matrix[at]; }
fn values(w: Group) -> Eight {
    return Eight(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
