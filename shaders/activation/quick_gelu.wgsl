// Implements interface `activation`: the sigmoid approximation of GELU, v sigmoid(1.702 v).
fn activate(v: f32) -> f32 { return v / (1.0 + exp(-1.702 * max(v, -40.0))); }
