// interface `turn`: positions turn nothing.
fn turn(position: u32, i: u32, value: f32, other: f32) -> f32 { return value; }
