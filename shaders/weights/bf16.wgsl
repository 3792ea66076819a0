// Implements interface `values` for bfloat16: two values per word, each the upper half of an f32.
alias Group = vec4<u32>;
@group(1) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
fn group_of(at: u32) -> Group { return matrix[at]; }
fn pair(word: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u)); }
fn values(w: Group) -> Eight { return Eight(vec4(pair(w.x), pair(w.y)), vec4(pair(w.z), pair(w.w))); }
