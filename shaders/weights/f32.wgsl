// Implements interface `values` for f32.
alias Group = Eight;
@group(1) @binding(0) var<storage, read> matrix: array<vec4<f32>>;
fn group_of(at: u32) -> Group { return Eight(matrix[2u * at], matrix[2u * at + 1u]); }
fn values(group: Group) -> Eight { return group; }
