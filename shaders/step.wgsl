// interface `step`: what changes from one step to the next, bound once at group 0. src/step.rs writes it.
const BLOCK = 32u; // positions in a block of the cache
const SAMPLED = 0xffffffffu; // the token of a row whose id the device itself sampled
struct Row { token: u32, position: u32, sequence: u32 }
@group(0) @binding(0) var<storage, read> step: array<u32>;

fn row_count() -> u32 { return step[0]; }
fn output_count() -> u32 { return step[1]; }
fn row_at(i: u32) -> Row {
    let at = step[2] + 4u * i;
    return Row(step[at], step[at + 1u], step[at + 2u]);
}
// How a sequence's next token is drawn. `least`: how much lower than the highest a logit may be.
struct Sampling { temperature: f32, top_k: u32, top_p: f32, least: f32, seed: vec2<u32> }
fn sampling_of(sequence: u32) -> Sampling {
    let at = step[6] + 12u * sequence;
    return Sampling(
        bitcast<f32>(step[at]),
        step[at + 1u],
        bitcast<f32>(step[at + 2u]),
        bitcast<f32>(step[at + 3u]),
        vec2(step[at + 4u], step[at + 5u]),
    );
}
// How tokens that were there before are made less likely: those of a sequence, and how often each was there.
struct Penalties { repetition: f32, frequency: f32, presence: f32, at: u32, seen: u32 }
fn penalties_of(sequence: u32) -> Penalties {
    let at = step[6] + 12u * sequence;
    return Penalties(
        bitcast<f32>(step[at + 6u]),
        bitcast<f32>(step[at + 7u]),
        bitcast<f32>(step[at + 8u]),
        step[at + 9u],
        step[at + 10u],
    );
}
struct Seen { token: u32, count: u32 }
fn seen_at(p: Penalties, i: u32) -> Seen { return Seen(step[p.at + 2u * i], step[p.at + 2u * i + 1u]); }
// The row whose logits are output i.
fn output_row(i: u32) -> u32 { return step[step[3] + i]; }
// The token whose probability is asked for, of output i.
fn target_of(i: u32) -> u32 { return step[step[7] + i]; }
// Where in the cache a position of a sequence lies.
fn slot_of(sequence: u32, position: u32) -> u32 {
    return step[step[4] + sequence * step[5] + position / BLOCK] * BLOCK + position % BLOCK;
}
// The workgroup's number among those of its rows: the grid folds them over x and y.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 { return group.y * groups.x + group.x; }
