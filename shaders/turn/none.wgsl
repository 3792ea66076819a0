// Implements interface `turn`: no rotation, for models without rotary embeddings.
fn turn(position: u32, i: u32, value: f32, other: f32) -> f32 { return value; }
