// interface `turn`: each pair of values by its position's angle. Pairs lie side by side; the table holds
// (cos, sin) for each position and pair.
override PAIRS: u32; // pairs in a head
@group(1) @binding(5) var<storage, read> table: array<vec2<f32>>;

// The i-th value, which the other of its pair turns with.
fn turn(position: u32, i: u32, value: f32, other: f32) -> f32 {
    let angle = table[position * PAIRS + i / 2u % PAIRS];
    return value * angle.x + select(-other, other, i % 2u == 1u) * angle.y;
}
