// Implements interface `step`: the inputs of one step (rows, outputs, cache tables, sampling settings), bound
// at group 0. src/step.rs writes the words.
const BLOCK = 32u; // positions in a block of the KV cache
const SAMPLED = 0xffffffffu; // token of a row whose id the device sampled: read it from `ids`
const FEATURE = 0xfffffffeu; // token of a row that takes an image feature instead of a token embedding
// `attends_to`: the last position that the row attends to.
struct Row { token: u32, position: u32, sequence: u32, attends_to: u32 }
@group(0) @binding(0) var<storage, read> step: array<u32>;

fn row_count() -> u32 { return step[0]; }
fn output_count() -> u32 { return step[1]; }
fn row_at(i: u32) -> Row {
    let at = step[2] + 4u * i;
    return Row(step[at], step[at + 1u], step[at + 2u], step[at + 3u]);
}
// How to sample a sequence's next token. `least`: lowest logit that min-p keeps, relative to the highest
// logit (at most 0). `mirostat_min_p`: lowest probability that mirostat keeps; 0 without mirostat.
struct Draw {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p_margin: f32,
    seed: vec2<u32>,
    typical_p: f32,
    mirostat_min_p: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
}
fn draw_of(sequence: u32) -> Draw {
    let at = step[6] + 16u * sequence;
    return Draw(
        bitcast<f32>(step[at]),
        step[at + 1u],
        bitcast<f32>(step[at + 2u]),
        bitcast<f32>(step[at + 3u]),
        vec2(step[at + 4u], step[at + 5u]),
        bitcast<f32>(step[at + 6u]),
        bitcast<f32>(step[at + 7u]),
        bitcast<f32>(step[at + 8u]),
        bitcast<f32>(step[at + 9u]),
    );
}
// How a sequence's logits change before sampling. `adjusted` tokens have a changed logit; their words start
// at step[at].
struct Penalties { repetition: f32, frequency: f32, presence: f32, at: u32, adjusted: u32 }
fn penalties_of(sequence: u32) -> Penalties {
    let at = step[6] + 16u * sequence + 10u;
    return Penalties(
        bitcast<f32>(step[at]),
        bitcast<f32>(step[at + 1u]),
        bitcast<f32>(step[at + 2u]),
        step[at + 3u],
        step[at + 4u],
    );
}
struct Adjusted { token: u32, count: u32, bias: f32, dry: f32 }
fn adjusted_at(p: Penalties, i: u32) -> Adjusted {
    let at = p.at + 4u * i;
    return Adjusted(step[at], step[at + 1u], bitcast<f32>(step[at + 2u]), bitcast<f32>(step[at + 3u]));
}
// How much of an adapter applies to a sequence.
fn adapter_scale(sequence: u32, adapter: u32) -> f32 {
    return bitcast<f32>(step[step[step[6] + 16u * sequence + 15u] + adapter]);
}
// The row that output i takes its logits from.
fn output_row(i: u32) -> u32 { return step[step[3] + i]; }
// The token whose log-probability is wanted for output i.
fn target_of(i: u32) -> u32 { return step[step[7] + i]; }
// The slot of the KV cache that holds a position of a sequence, found through the sequence's block table.
fn slot_of(sequence: u32, position: u32) -> u32 {
    return step[step[4] + sequence * step[5] + position / BLOCK] * BLOCK + position % BLOCK;
}
// The index of the workgroup among those with the same z: the grid folds one dimension into x and y.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 { return group.y * groups.x + group.x; }
