// Implements interface `pair`: the rotation of a pair of values by an angle, given as (cos, sin).
fn rotate(pair: vec2<f32>, angle: vec2<f32>) -> vec2<f32> {
    return vec2(pair.x * angle.x - pair.y * angle.y, pair.x * angle.y + pair.y * angle.x);
}
