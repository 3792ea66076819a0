// Implements interface `turn`: rotary position embedding. The two values of a pair are adjacent; the table
// holds (cos, sin): [position][pair].
override PAIRS: u32; // pairs in a head
#import pair
@group(1) @binding(5) var<storage, read> table: array<vec2<f32>>;

// The rotated i-th value of a row; `other` is the other value of its pair.
fn turn(position: u32, i: u32, value: f32, other: f32) -> f32 {
    let angle = table[position * PAIRS + i / 2u % PAIRS];
    if i % 2u == 0u { return rotate(vec2(value, other), angle).x; }
    return rotate(vec2(other, value), angle).y;
}
