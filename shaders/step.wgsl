// interface `step`: what changes from one step to the next, bound once at group 0. src/step.rs writes it.
const BLOCK = 32u; // positions in a block of the cache
const SAMPLED = 0xffffffffu; // the token of a row whose id the device itself sampled
const FEATURE = 0xfffffffeu; // the token of a row that stands for a part of an image
// `sees`: the last position that it attends to.
struct Row { token: u32, position: u32, sequence: u32, sees: u32 }
@group(0) @binding(0) var<storage, read> step: array<u32>;

fn row_count() -> u32 { return step[0]; }
fn output_count() -> u32 { return step[1]; }
fn row_at(i: u32) -> Row {
    let at = step[2] + 4u * i;
    return Row(step[at], step[at + 1u], step[at + 2u], step[at + 3u]);
}
// How a sequence's next token is drawn. `least`: how much lower than the highest a logit may be; `rarest`: how probable it
// must be, by mirostat, or 0.
struct Draw {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    least: f32,
    seed: vec2<u32>,
    typical_p: f32,
    rarest: f32,
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
// How logits change before that: of so many tokens of a sequence, those at `at`.
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
